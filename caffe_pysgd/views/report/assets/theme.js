// In the head, before anything is drawn: the theme that was chosen last, or the system's.
(() => {
  let kept = null;
  try { kept = localStorage.getItem("caffe-pysgd-theme"); } catch (error) { /* not allowed */ }
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = kept || (dark ? "dark" : "light");
})();
