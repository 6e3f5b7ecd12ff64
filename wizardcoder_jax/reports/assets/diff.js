"use strict";
// Word-by-word difference between two texts: [[kind, text]...] with kind "same", "added" or "removed".
// Source: the greedy algorithm of E. Myers, An O(ND) Difference Algorithm and Its Variations (1986).
const MAX_EDITS = 1200; // beyond this, everything between the common prefix and suffix counts as replaced

function words(text) {
  return text.match(/[\p{L}\p{N}_]+|\s+|[^\p{L}\p{N}_\s]/gu) ?? [];
}

function edits(a, b) {
  // Return the edit script from a to b as [kind, word], or null if it has more than MAX_EDITS edits.
  const size = Math.min(a.length + b.length, MAX_EDITS);
  const reach = new Int32Array(2 * size + 3); // furthest x so far on diagonal k = x - y, at index k + size + 1
  const trail = [];
  for (let d = 0; d <= size; d++) {
    trail.push(reach.slice(size + 1 - d - 1, size + 1 + d + 2));
    for (let k = -d; k <= d; k += 2) {
      const at = k + size + 1;
      let x = k === -d || (k !== d && reach[at - 1] < reach[at + 1]) ? reach[at + 1] : reach[at - 1] + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x++;
      reach[at] = x;
      if (x >= a.length && x - k >= b.length) return walkBack(a, b, trail, d);
    }
  }
  return null;
}

function walkBack(a, b, trail, last) {
  const steps = [];
  let x = a.length, y = b.length;
  for (let d = last; d >= 0; d--) {
    const before = (k) => trail[d][k + d + 1];
    const k = x - y;
    const down = k === -d || (k !== d && before(k - 1) < before(k + 1));
    const fromX = d === 0 ? 0 : before(down ? k + 1 : k - 1);
    const fromY = d === 0 ? 0 : fromX - (down ? k + 1 : k - 1);
    while (x > fromX && y > fromY) { steps.push(["same", a[--x]]); y--; }
    if (d > 0) steps.push(down ? ["added", b[--y]] : ["removed", a[--x]]);
  }
  return steps.reverse();
}

function difference(before, after) {
  const a = words(before), b = words(after);
  let start = 0, end = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  while (end < a.length - start && end < b.length - start && a.at(-1 - end) === b.at(-1 - end)) end++;
  const [middleA, middleB] = [a.slice(start, a.length - end), b.slice(start, b.length - end)];
  const middle = edits(middleA, middleB) ?? [...middleA.map((w) => ["removed", w]), ...middleB.map((w) => ["added", w])];
  const same = (list) => list.map((word) => ["same", word]);
  return joined([...same(a.slice(0, start)), ...middle, ...same(a.slice(a.length - end))]);
}

function joined(steps) {
  // Merge steps into runs of one kind. A single common word between changes counts as changed; removals precede additions.
  const runs = [];
  let removed = "", added = "", kept = "", keptWords = 0;
  const close = () => {
    if (removed) runs.push(["removed", removed]);
    if (added) runs.push(["added", added]);
    removed = added = "";
  };
  const settle = () => {
    if (!kept) return;
    close();
    runs.push(["same", kept]);
    kept = "";
    keptWords = 0;
  };
  for (const [kind, word] of steps) {
    if (kind === "same") {
      kept += word;
      keptWords += /[\p{L}\p{N}]/u.test(word);
      continue;
    }
    if (kept && keptWords < 2 && (removed || added)) {
      removed += kept;
      added += kept;
      kept = "";
      keptWords = 0;
    } else settle();
    if (kind === "added") added += word; else removed += word;
  }
  settle();
  close();
  return runs;
}
