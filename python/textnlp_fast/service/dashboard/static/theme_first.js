// Runs before anything is painted, so that a chosen theme never flashes. A classic script: modules come too late.
try {
  const chosen = localStorage.getItem("textnlp-fast.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage is shut off: the system's theme it is.
}
