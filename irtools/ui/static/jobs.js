"use strict";
const form = document.getElementById("job");

function choose() {
  const kind = form.elements.kind.value;
  for (const part of form.querySelectorAll("[data-kinds]")) part.hidden = !part.dataset.kinds.split(" ").includes(kind);
}

form.addEventListener("change", choose);
form.addEventListener("click", (event) => {
  if (event.target.matches("[data-remove]")) event.target.closest("fieldset").remove();
});
choose();
