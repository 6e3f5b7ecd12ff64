"use strict";
// Text of users and models only ever becomes text nodes, never markup.
const byId = (id) => document.getElementById(id);
const messages = []; // the conversation so far, in the format of the API
let currentRequest = null; // the AbortController of the current answer

function createElement(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

// Characters that reorder text are made visible everywhere, and invisible characters in code as well.
const REORDERING = /[\u202a-\u202e\u2066-\u2069]/g;
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
const codePointName = (character) => `<U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}>`;
const showHidden = (text, hidden) => text.replace(/\r\n?/g, "\n").replace(hidden, codePointName);

// Syntax highlighting: one regular expression per group of languages. Its named groups are the CSS classes.
const keywords = (text) => `(?<keyword>\\b(?:${text.trim().split(/\s+/).join("|")})\\b)`;
const NUMBER = "(?<number>\\b(?:0[xXbBoO][\\da-fA-F_]+|\\d[\\d_]*(?:\\.\\d+)?(?:[eE][+-]?\\d+)?)\\b)";
const STRING = "\"(?:\\\\[^]|[^\"\\\\\\n])*\"?|'(?:\\\\[^]|[^'\\\\\\n])*'?";
const NAME = "(?<name>\\b[A-Za-z_]\\w*(?=\\s*\\())|\\b[A-Za-z_]\\w*";
const PYTHON = new RegExp(
  [
    "(?<comment>#[^\\n]*)",
    `(?<string>\\b[rRbBfFuU]{0,2}(?:"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|${STRING})|"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|${STRING})`,
    NUMBER,
    keywords(`and as assert async await break case class continue def del elif else except finally for from global if import in is
      lambda match nonlocal not or pass raise return try while with yield None True False self`),
    NAME,
  ].join("|"),
  "g",
);
const GENERIC_WORDS = keywords(`abstract as async await bool boolean break case catch char class const constexpr continue default
  defer delete do double else elsif end enum export extends extern false final finally float fn for foreach from func function
  go if impl implements import in instanceof int interface let local long loop match module mut namespace new nil not null
  override package private protected pub public raise require return self short static string struct super switch template then
  this throw throws trait true try type typeof unsigned until use using var virtual void where while with yield
  SELECT FROM WHERE INSERT INTO VALUES UPDATE SET DELETE CREATE TABLE JOIN LEFT RIGHT INNER ON GROUP BY ORDER HAVING LIMIT AS AND OR NOT NULL`);
const languagePattern = (comment) =>
  new RegExp([`(?<comment>${comment})`, `(?<string>${STRING}|\`(?:\\\\[^]|[^\`\\\\])*\`?)`, NUMBER, GENERIC_WORDS, NAME].join("|"), "g");
const SLASH_COMMENTS = languagePattern("//[^\\n]*|/\\*[^]*?(?:\\*/|$)");
const HASH_COMMENTS = languagePattern("#[^\\n]*");
const DASH_COMMENTS = languagePattern("--[^\\n]*");
const PATTERNS = new Map([
  ...["python", "py", "python3", "pycon", ""].map((name) => [name, PYTHON]),
  ...["bash", "sh", "shell", "zsh", "ruby", "rb", "perl", "r", "yaml", "toml", "julia", "elixir"].map((name) => [name, HASH_COMMENTS]),
  ...["sql", "lua", "haskell"].map((name) => [name, DASH_COMMENTS]),
]);
const MAX_HIGHLIGHTED = 100000; // characters; longer blocks are not highlighted

function highlight(code, language) {
  const parts = document.createDocumentFragment();
  let end = 0;
  const found = code.length > MAX_HIGHLIGHTED ? [] : code.matchAll(PATTERNS.get(language) ?? SLASH_COMMENTS);
  for (const match of found) {
    const kind = Object.keys(match.groups).find((name) => match.groups[name] !== undefined);
    if (!kind) continue;
    parts.append(code.slice(end, match.index), createElement("span", kind, match[0]));
    end = match.index + match[0].length;
  }
  parts.append(code.slice(end));
  return parts;
}

// Split an answer into prose and fenced code blocks.
function splitSegments(text) {
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
  const button = createElement("button", "", "Copy");
  button.type = "button";
  button.setAttribute("aria-label", label);
  button.addEventListener("click", async () => {
    const isCopied = await copyText(content());
    button.textContent = isCopied ? "Copied" : "Copy failed";
    setStatus(isCopied ? "Copied." : "The browser did not allow copying.");
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return button;
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { // browsers only allow the clipboard API on https and localhost
    const area = createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

// Display of an answer while it is being generated. Segments that do not change keep their elements.
class Answer {
  constructor() {
    this.text = "";
    this.shown = [];
    this.element = createElement("article", "turn assistant busy");
    this.body = createElement("div", "answer");
    const who = createElement("p", "who");
    who.append("Answer", copyButton("Copy the answer", () => this.text));
    this.note = createElement("p", "note");
    this.element.append(who, this.body, this.note);
  }

  add(text) {
    this.text += text;
    splitSegments(this.text).forEach((segment, i) => this.show(segment, i));
  }

  show(segment, i) {
    const before = this.shown[i];
    if (before && before.content === segment.content && before.language === segment.language && before.isCode === segment.isCode) return;
    if (!before || before.isCode !== segment.isCode || before.language !== segment.language) {
      const element = segment.isCode ? this.codeBlock(segment, i) : createElement("div", "text");
      if (before) before.element.replaceWith(element);
      else this.body.append(element);
      segment.element = element;
    } else segment.element = before.element;
    if (segment.isCode) segment.element.querySelector("code").replaceChildren(highlight(showHidden(segment.content, HIDDEN), segment.language));
    else segment.element.textContent = showHidden(segment.content, REORDERING);
    this.shown[i] = segment;
  }

  codeBlock(segment, i) {
    const figure = createElement("figure", "code"), caption = createElement("figcaption"), pre = createElement("pre");
    caption.append(createElement("span", "", segment.language || "code"), copyButton("Copy the code", () => this.shown[i].content));
    pre.tabIndex = 0; // makes it scrollable with the keyboard
    pre.append(createElement("code"));
    figure.append(caption, pre);
    return figure;
  }

  end(note) {
    this.element.classList.remove("busy");
    this.note.textContent = note;
  }

  fail(message) {
    const error = createElement("p", "error", message);
    error.setAttribute("role", "alert");
    this.element.append(error);
  }
}

const setStatus = (text) => { byId("status").textContent = text; };

function requestHeaders() {
  const key = byId("key").value.trim();
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

function requestBody(conversation) {
  const system = byId("system").value.trim();
  const body = { stream: true, stream_options: { include_usage: true } };
  body.messages = [...(system ? [{ role: "system", content: system }] : []), ...conversation];
  for (const name of ["temperature", "top_p", "max_tokens", "seed"]) if (byId(name).value !== "") body[name] = Number(byId(name).value);
  return JSON.stringify(body);
}

async function* readEvents(response) {
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

async function readError(response) {
  if (response.status === 401) {
    byId("key-label").hidden = false;
    openSettings(true);
    byId("key").focus();
  }
  try {
    return (await response.json()).error.message;
  } catch {
    return `The server responded with HTTP status ${response.status}.`;
  }
}

async function streamAnswer(answer, conversation, signal) {
  const response = await fetch("/v1/chat/completions", { method: "POST", headers: requestHeaders(), body: requestBody(conversation), signal });
  if (!response.ok) throw new Error(await readError(response));
  let reason = null, usage = null;
  for await (const event of readEvents(response)) {
    if (event.error) throw new Error(event.error.message);
    usage = event.usage ?? usage;
    for (const choice of event.choices) {
      if (choice.delta.content) follow(() => answer.add(choice.delta.content));
      reason = choice.finish_reason ?? reason;
    }
  }
  if (!reason) throw new Error("The connection was closed before the answer was complete.");
  return { reason, usage };
}

// Run an action that adds content, and keep the page scrolled to the end if it was there before.
function follow(action) {
  const main = document.querySelector("main");
  const isAtEnd = main.scrollHeight - main.scrollTop - main.clientHeight < 40;
  action();
  if (isAtEnd) main.scrollTop = main.scrollHeight;
}

function addTurn(prompt) {
  byId("welcome").hidden = true;
  const turn = createElement("article", "turn user"), answer = new Answer();
  turn.append(createElement("p", "who", "You"), createElement("div", "text", showHidden(prompt, REORDERING)));
  byId("turns").append(turn, answer.element);
  const main = document.querySelector("main");
  main.scrollTop = main.scrollHeight;
  return answer;
}

function setCurrentRequest(controller) {
  currentRequest = controller;
  byId("stop").hidden = !controller;
  byId("send").disabled = Boolean(controller);
  byId("turns").setAttribute("aria-busy", String(Boolean(controller)));
}

async function send() {
  const prompt = byId("prompt").value;
  if (currentRequest || !prompt.trim()) return;
  const answer = addTurn(prompt), controller = new AbortController(), start = performance.now();
  const conversation = [...messages, { role: "user", content: prompt }];
  setCurrentRequest(controller);
  byId("prompt").value = "";
  setStatus("Generating\u2026");
  let note = "";
  try {
    const { reason, usage } = await streamAnswer(answer, conversation, controller.signal);
    const seconds = (performance.now() - start) / 1000, count = usage ? usage.completion_tokens : 0;
    note = `${count} tokens in ${seconds.toFixed(1)} s`;
    if (reason === "length") note += ", cut off at the token limit";
    setStatus("Answer complete.");
  } catch (error) {
    note = controller.signal.aborted ? "Stopped." : "";
    setStatus(controller.signal.aborted ? "Stopped." : "The request failed.");
    if (!controller.signal.aborted) follow(() => answer.fail(error.message));
    if (!answer.text && currentRequest === controller && !byId("prompt").value) byId("prompt").value = prompt;
  }
  follow(() => answer.end(note));
  if (currentRequest !== controller) return; // a new chat has been started
  if (answer.text) messages.push(conversation.at(-1), { role: "assistant", content: answer.text });
  setCurrentRequest(null);
}

function openSettings(isOpen) {
  byId("settings").hidden = !isOpen;
  byId("toggle").setAttribute("aria-expanded", String(isOpen));
}

byId("composer").addEventListener("submit", (event) => { event.preventDefault(); send(); });
byId("stop").addEventListener("click", () => currentRequest?.abort());
byId("toggle").addEventListener("click", () => openSettings(byId("settings").hidden));
byId("new").addEventListener("click", () => {
  currentRequest?.abort();
  setCurrentRequest(null);
  messages.length = 0;
  byId("turns").replaceChildren();
  byId("welcome").hidden = false;
  setStatus("");
  byId("prompt").focus();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && currentRequest) { event.preventDefault(); currentRequest.abort(); byId("prompt").focus(); }
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); send(); }
});

fetch("/v1/models", { headers: requestHeaders() }).then(async (response) => {
  if (!response.ok) return;
  const [model] = (await response.json()).data;
  byId("model").textContent = document.title = model.id;
  byId("max_tokens").max = model.max_model_len;
}).catch(() => setStatus("The server cannot be reached."));
