// What the page that Python writes starts: its diagrams, each with the facts beside it, and the button of the theme.
import { attach } from "./attach.js";

// A frame that a notebook has not opened yet gives no sizes, and everything is measured when a diagram begins to answer.
const laidOut = (el, then) => {
  if (el.clientWidth) return then();
  const watch = new ResizeObserver(() => {
    if (!el.clientWidth) return;
    watch.disconnect();
    then();
  });
  watch.observe(el);
};

for (const root of document.querySelectorAll(".diagram")) {
  const data = JSON.parse(root.querySelector(".data").textContent);
  laidOut(root.querySelector(".picture"), () => attach(root, data));
}

const themes = ["auto", "light", "dark"];
document.getElementById("theme").addEventListener("click", (e) => {
  const page = document.documentElement;
  const next = themes[(themes.indexOf(page.dataset.theme ?? "auto") + 1) % 3];
  if (next === "auto") delete page.dataset.theme;
  else page.dataset.theme = next;
  e.target.textContent = `Theme: ${next}`;
});
