// What the page that Python writes starts: its diagrams, each with the facts beside it, and the button of the theme.
import { attach } from "./attach.js";

for (const root of document.querySelectorAll(".diagram")) attach(root, JSON.parse(root.querySelector(".data").textContent));

const themes = ["auto", "light", "dark"];
document.getElementById("theme").addEventListener("click", (e) => {
  const page = document.documentElement;
  const next = themes[(themes.indexOf(page.dataset.theme ?? "auto") + 1) % 3];
  if (next === "auto") delete page.dataset.theme;
  else page.dataset.theme = next;
  e.target.textContent = `Theme: ${next}`;
});
