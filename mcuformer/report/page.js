// SPDX-License-Identifier: Apache-2.0
// Shows data-tip of what is pointed at, touched or focused, as text beside it and inside the window.
"use strict";
const tip = document.getElementById("tip");

function show(event) {
  const mark = event.target.closest("[data-tip]");
  tip.hidden = mark === null;
  if (mark === null) return;
  tip.textContent = mark.dataset.tip;
  const at = mark.getBoundingClientRect();
  const width = tip.offsetWidth, height = tip.offsetHeight;
  const left = at.left + at.width / 2 - width / 2;
  const above = at.top - height - 8;
  tip.style.left = Math.max(8, Math.min(left, innerWidth - width - 8)) + "px";
  tip.style.top = (above >= 8 ? above : Math.min(at.bottom + 8, innerHeight - height - 8)) + "px";
}

for (const kind of ["pointerover", "pointerdown", "focusin"]) document.addEventListener(kind, show);
document.addEventListener("scroll", () => { tip.hidden = true; }, true);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
