"use strict";
// Texts of people and models become text nodes, never markup.
const at = (id) => document.getElementById(id);
const messages = []; // of the conversation, as the API takes them
let running = null; // the AbortController of the answer in progress

function made(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

// Characters that hide or reorder text are shown: those that reorder everywhere, zero-width ones in code.
const REORDERING = /[\u202a-\u202e\u2066-\u2069]/g;
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
const named = (character) => `<U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}>`;
const visible = (text, hidden) => text.replace(/\r\n?/g, "\n").replace(hidden, named);

// Highlighting: one regular expression a family of languages, whose named groups are the classes.
const words = (text) => `(?<keyword>\\b(?:${text.trim().split(/\s+/).join("|")})\\b)`;
const NUMBER = "(?<number>\\b(?:0[xXbBoO][\\da-fA-F_]+|\\d[\\d_]*(?:\\.\\d+)?(?:[eE][+-]?\\d+)?)\\b)";
const STRING = "\"(?:\\\\[^]|[^\"\\\\\\n])*\"?|'(?:\\\\[^]|[^'\\\\\\n])*'?";
const NAME = "(?<name>\\b[A-Za-z_]\\w*(?=\\s*\\())|\\b[A-Za-z_]\\w*";
const PYTHON = new RegExp(
  [
    "(?<comment>#[^\\n]*)",
    `(?<string>\\b[rRbBfFuU]{0,2}(?:"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|${STRING})|"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|${STRING})`,
    NUMBER,
    words(`and as assert async await break case class continue def del elif else except finally for from global if import in is
      lambda match nonlocal not or pass raise return try while with yield None True False self`),
    NAME,
  ].join("|"),
  "g",
);
const GENERIC_WORDS = words(`abstract as async await bool boolean break case catch char class const constexpr continue default
  defer delete do double else elsif end enum export extends extern false final finally float fn for foreach from func function
  go if impl implements import in instanceof int interface let local long loop match module mut namespace new nil not null
  override package private protected pub public raise require return self short static string struct super switch template then
  this throw throws trait true try type typeof unsigned until use using var virtual void where while with yield
  SELECT FROM WHERE INSERT INTO VALUES UPDATE SET DELETE CREATE TABLE JOIN LEFT RIGHT INNER ON GROUP BY ORDER HAVING LIMIT AS AND OR NOT NULL`);
const family = (comment) =>
  new RegExp([`(?<comment>${comment})`, `(?<string>${STRING}|\`(?:\\\\[^]|[^\`\\\\])*\`?)`, NUMBER, GENERIC_WORDS, NAME].join("|"), "g");
const SLASHED = family("//[^\\n]*|/\\*[^]*?(?:\\*/|$)");
const HASHED = family("#[^\\n]*");
const DASHED = family("--[^\\n]*");
const FAMILIES = new Map([
  ...["python", "py", "python3", "pycon", ""].map((name) => [name, PYTHON]),
  ...["bash", "sh", "shell", "zsh", "ruby", "rb", "perl", "r", "yaml", "toml", "julia", "elixir"].map((name) => [name, HASHED]),
  ...["sql", "lua", "haskell"].map((name) => [name, DASHED]),
]);
const MOST_HIGHLIGHTED = 100000; // characters of a block; a longer one stays plain

function highlighted(code, language) {
  const parts = document.createDocumentFragment();
  let end = 0;
  const found = code.length > MOST_HIGHLIGHTED ? [] : code.matchAll(FAMILIES.get(language) ?? SLASHED);
  for (const match of found) {
    const kind = Object.keys(match.groups).find((name) => match.groups[name] !== undefined);
    if (!kind) continue;
    parts.append(code.slice(end, match.index), made("span", kind, match[0]));
    end = match.index + match[0].length;
  }
  parts.append(code.slice(end));
  return parts;
}

// An answer as prose and fenced code, in order.
function segmentsOf(text) {
  const segments = [];
  let fence = null, lines = [], language = "";
  const close = (isCode) => {
    const content = isCode ? lines.join("\n") : lines.join("\n").replace(/^\n+|\n+$/g, "");
    if (content || isCode) segments.push({ isCode, content, language });
    lines = [];
  };
  for (const line of text.split("\n")) {
    const mark = line.match(/^\s*(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/);
    if (fence && mark && mark[1].startsWith(fence) && !mark[2]) { close(true); fence = null; }
    else if (!fence && mark) { close(false); fence = mark[1]; language = mark[2].toLowerCase(); }
    else lines.push(line);
  }
  close(fence !== null);
  return segments;
}

function copyButton(label, content) {
  const button = made("button", "", "Copy");
  button.type = "button";
  button.setAttribute("aria-label", label);
  button.addEventListener("click", async () => {
    const isCopied = await copied(content());
    button.textContent = isCopied ? "Copied" : "Not copied";
    say(isCopied ? "Copied." : "The browser does not let this page copy.");
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return button;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { // no clipboard without https, but on localhost
    const area = made("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

// Shows an answer as it grows; parts that stay as they are keep their elements.
class Answer {
  constructor() {
    this.text = "";
    this.shown = [];
    this.element = made("article", "turn assistant busy");
    this.body = made("div", "answer");
    const who = made("p", "who");
    who.append("Answer", copyButton("Copy the answer", () => this.text));
    this.note = made("p", "note");
    this.element.append(who, this.body, this.note);
  }

  add(text) {
    this.text += text;
    segmentsOf(this.text).forEach((segment, i) => this.show(segment, i));
  }

  show(segment, i) {
    const before = this.shown[i];
    if (before && before.content === segment.content && before.language === segment.language && before.isCode === segment.isCode) return;
    if (!before || before.isCode !== segment.isCode || before.language !== segment.language) {
      const element = segment.isCode ? this.codeBlock(segment, i) : made("div", "text");
      if (before) before.element.replaceWith(element);
      else this.body.append(element);
      segment.element = element;
    } else segment.element = before.element;
    if (segment.isCode) segment.element.querySelector("code").replaceChildren(highlighted(visible(segment.content, HIDDEN), segment.language));
    else segment.element.textContent = visible(segment.content, REORDERING);
    this.shown[i] = segment;
  }

  codeBlock(segment, i) {
    const figure = made("figure", "code"), caption = made("figcaption"), pre = made("pre");
    caption.append(made("span", "", segment.language || "code"), copyButton("Copy the code", () => this.shown[i].content));
    pre.tabIndex = 0; // for the keyboard to scroll it
    pre.append(made("code"));
    figure.append(caption, pre);
    return figure;
  }

  end(note) {
    this.element.classList.remove("busy");
    this.note.textContent = note;
  }

  fail(message) {
    const error = made("p", "error", message);
    error.setAttribute("role", "alert");
    this.element.append(error);
  }
}

const say = (text) => { at("status").textContent = text; };

function headers() {
  const key = at("key").value.trim();
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

function requestOf(conversation) {
  const system = at("system").value.trim();
  const body = { stream: true, stream_options: { include_usage: true } };
  body.messages = [...(system ? [{ role: "system", content: system }] : []), ...conversation];
  for (const name of ["temperature", "top_p", "max_tokens", "seed"]) if (at(name).value !== "") body[name] = Number(at(name).value);
  return JSON.stringify(body);
}

async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) if (event.startsWith("data: {")) yield JSON.parse(event.slice(6));
  }
}

async function refusalOf(response) {
  if (response.status === 401) {
    at("key-label").hidden = false;
    openSettings(true);
    at("key").focus();
  }
  try {
    return (await response.json()).error.message;
  } catch {
    return `The server answered ${response.status}.`;
  }
}

async function answered(answer, conversation, signal) {
  const response = await fetch("/v1/chat/completions", { method: "POST", headers: headers(), body: requestOf(conversation), signal });
  if (!response.ok) throw new Error(await refusalOf(response));
  let reason = null, usage = null;
  for await (const event of eventsOf(response)) {
    if (event.error) throw new Error(event.error.message);
    usage = event.usage ?? usage;
    for (const choice of event.choices) {
      if (choice.delta.content) follow(() => answer.add(choice.delta.content));
      reason = choice.finish_reason ?? reason;
    }
  }
  if (!reason) throw new Error("The server broke off.");
  return { reason, usage };
}

// Does something, and keeps the end in sight if it was.
function follow(action) {
  const main = document.querySelector("main");
  const isAtEnd = main.scrollHeight - main.scrollTop - main.clientHeight < 40;
  action();
  if (isAtEnd) main.scrollTop = main.scrollHeight;
}

function begin(prompt) {
  at("welcome").hidden = true;
  const turn = made("article", "turn user"), answer = new Answer();
  turn.append(made("p", "who", "You"), made("div", "text", visible(prompt, REORDERING)));
  at("turns").append(turn, answer.element);
  const main = document.querySelector("main");
  main.scrollTop = main.scrollHeight;
  return answer;
}

function setRunning(controller) {
  running = controller;
  at("stop").hidden = !controller;
  at("send").disabled = Boolean(controller);
  at("turns").setAttribute("aria-busy", String(Boolean(controller)));
}

async function send() {
  const prompt = at("prompt").value;
  if (running || !prompt.trim()) return;
  const answer = begin(prompt), controller = new AbortController(), start = performance.now();
  const conversation = [...messages, { role: "user", content: prompt }];
  setRunning(controller);
  at("prompt").value = "";
  say("Answering\u2026");
  let note = "";
  try {
    const { reason, usage } = await answered(answer, conversation, controller.signal);
    const seconds = (performance.now() - start) / 1000, count = usage ? usage.completion_tokens : 0;
    note = `${count} tokens in ${seconds.toFixed(1)} s`;
    if (reason === "length") note += ", cut off at the limit of tokens";
    say("Answer complete.");
  } catch (error) {
    note = controller.signal.aborted ? "Stopped." : "";
    say(controller.signal.aborted ? "Stopped." : "No answer.");
    if (!controller.signal.aborted) follow(() => answer.fail(error.message));
    if (!answer.text && running === controller && !at("prompt").value) at("prompt").value = prompt;
  }
  follow(() => answer.end(note));
  if (running !== controller) return; // a new chat has begun
  if (answer.text) messages.push(conversation.at(-1), { role: "assistant", content: answer.text });
  setRunning(null);
}

function openSettings(isOpen) {
  at("settings").hidden = !isOpen;
  at("toggle").setAttribute("aria-expanded", String(isOpen));
}

at("composer").addEventListener("submit", (event) => { event.preventDefault(); send(); });
at("stop").addEventListener("click", () => running?.abort());
at("toggle").addEventListener("click", () => openSettings(at("settings").hidden));
at("new").addEventListener("click", () => {
  running?.abort();
  setRunning(null);
  messages.length = 0;
  at("turns").replaceChildren();
  at("welcome").hidden = false;
  say("");
  at("prompt").focus();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running) { event.preventDefault(); running.abort(); at("prompt").focus(); }
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); send(); }
});

fetch("/v1/models", { headers: headers() }).then(async (response) => {
  if (!response.ok) return;
  const [model] = (await response.json()).data;
  at("model").textContent = document.title = model.id;
  at("max_tokens").max = model.max_model_len;
}).catch(() => say("The server is not there."));
