"use strict";
// A line for a shell, made of what is ticked in a ranking.
document.addEventListener("DOMContentLoaded", () => {
  for (const picker of document.querySelectorAll("[data-picker]")) {
    const boxes = [...picker.querySelectorAll("[data-pick]")];
    const line = picker.querySelector("[data-picked] code");
    const write = () => {
      const names = boxes.filter((box) => box.checked).map((box) => box.parentElement.textContent.trim());
      line.parentElement.hidden = names.length === 0;
      line.textContent = picker.dataset.before + names.join("+") + picker.dataset.after;
    };
    for (const box of boxes) {
      box.hidden = false;
      box.addEventListener("change", write);
    }
    picker.querySelector("[data-picked]").hidden = false;
    write();
  }
});
