"use strict";
// Filters of the problem lists, and keys to move between problems. Without scripts the page shows everything.
for (const tools of document.querySelectorAll(".tools")) {
  const problems = [...tools.parentElement.querySelectorAll(".problem")];
  const search = tools.querySelector("input[type=search]");
  const status = tools.querySelector("[role=status]");
  const update = () => {
    const state = tools.querySelector("input[type=radio]:checked").value;
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const problem of problems) {
      const inState = state === "all" || problem.dataset.state.split(" ").includes(state);
      problem.hidden = !(inState && words.every((word) => problem.dataset.words.includes(word)));
      count += !problem.hidden;
    }
    status.textContent = `${count} of ${problems.length} problems`;
  };
  tools.addEventListener("input", update);
  tools.hidden = false;
  update();
}

function reveal() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.matches(".problem")) {
    target.hidden = false;
    target.open = true;
    target.querySelector("summary").focus({ preventScroll: true });
    target.scrollIntoView();
  }
}
addEventListener("hashchange", reveal);
addEventListener("load", reveal); // after the browser's own jump, which would take the focus away

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=search]")) return;
  if (event.key === "/") {
    const search = document.querySelector(".tools input[type=search]");
    if (search) { event.preventDefault(); search.focus(); }
  }
  const step = { j: 1, k: -1 }[event.key];
  if (step) {
    const all = [...document.querySelectorAll(".problem:not([hidden]) > summary")];
    const here = all.findIndex((summary) => summary.parentElement.contains(document.activeElement));
    const next = all[here < 0 ? (step > 0 ? 0 : all.length - 1) : here + step];
    if (next) { next.focus(); next.scrollIntoView({ block: "nearest" }); }
  }
});
