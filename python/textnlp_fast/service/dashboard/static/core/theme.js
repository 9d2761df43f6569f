// Light, dark, or what the system says.

const KEY = "textnlp-fast.theme";
const NEXT = { system: "light", light: "dark", dark: "system" };
const NAMES = { system: "Theme: system", light: "Theme: light", dark: "Theme: dark" };

export function themeSwitch(button) {
  const show = () => {
    button.textContent = NAMES[now()];
    button.title = `Switch to ${NEXT[now()] === "system" ? "the system's theme" : NEXT[now()]}`;
  };
  button.addEventListener("click", () => {
    choose(NEXT[now()]);
    show();
  });
  show();
}

function now() {
  return document.documentElement.dataset.theme ?? "system";
}

function choose(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    if (theme === "system") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, theme);
  } catch {
    // It holds until the page is left.
  }
}
