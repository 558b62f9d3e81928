// Behaviour of the page that needs no server: where we are, what scrolls, what is copied, dropped and confirmed.
(() => {
  const root = document.documentElement;
  const store = { get: (k) => { try { return localStorage.getItem(k); } catch { return null; } },
                  set: (k, v) => { try { localStorage.setItem(k, v); } catch { /* private mode */ } } };
  const $ = (selector, from = document) => from.querySelector(selector);
  const word = (name) => $("#words")?.dataset[name] ?? "";
  const PAGES = ["knowledge", "data", "models", "settings"];

  // --- Light and dark: the reader's choice, else the system's.
  const system = matchMedia("(prefers-color-scheme: dark)");
  const paint = () => {
    const dark = (store.get("dbgpt_theme") ?? (system.matches ? "dark" : "light")) === "dark";
    root.classList.toggle("night", dark);
    document.body?.classList.toggle("dark", dark);
  };
  system.addEventListener("change", paint);
  paint();
  // Gradio sets its own class when it mounts.
  new MutationObserver(() => {
    if (document.body.classList.contains("dark") !== root.classList.contains("night")) paint();
  }).observe(document.body, { attributes: true, attributeFilter: ["class"] });

  document.cookie = `dbgpt_zone=${-new Date().getTimezoneOffset()};path=/;max-age=31536000;samesite=lax`;

  // --- The way to Python: one hidden component triggers every action.
  let trigger = null;
  const waiting = [];
  // Gradio closes the stream of replies when it believes that nothing is on its way; a request sent in that moment
  // is carried out, and its reply lies on the server until another request opens the stream again.
  let nudges = 0;
  // How often a late reply may still be put right: only where to ask was the last thing that was done here.
  let returns = 0;
  const act = (name, facts = {}) => {
    nudges = 3;
    returns = name === "ask" ? 3 : 0;
    trigger ? trigger(name, facts) : waiting.push([name, facts]);
  };

  const running = () => $("#live .running")?.dataset.conversation ?? null;
  const current = () => $("#thread [data-conversation]")?.dataset.conversation ?? "";
  const here = () => running() !== null && running() === current();

  /** Put a value into one of Gradio's text boxes as typing would. */
  function write(box, value) {
    const field = $(`${box} textarea, ${box} input`);
    if (!field) return;
    field.value = value;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }

  /** What one of Gradio's text boxes holds. */
  const held = (box) => $(`${box} textarea, ${box} input`)?.value ?? "";
  const currentIf = (link, yes) => { yes ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current"); };

  // Mode and source that the next new chat starts with.
  let chosen = null;

  // --- Where we are: #/, #/c/<id>, #/knowledge, #/knowledge/<space>, ...
  const place = () => location.hash.replace(/^#\/?/, "").split("/");
  const page = () => (PAGES.includes(place()[0]) ? place()[0] : "chat");
  const opened = () => (place()[0] === "c" ? place()[1] ?? "" : "");
  const go = (hash) => { if (location.hash !== hash) location.hash = hash; else arrive(); };
  function arrive() {
    root.dataset.page = page();
    root.classList.remove("with-sidebar");
    for (const link of document.querySelectorAll(".nav")) {
      currentIf(link, link.dataset.page === page());
    }
    if (page() !== "chat") act(`show_${page()}`, { id: place()[1] ?? "" });
    else if (trigger && (opened() !== current() || (sought !== null && sought !== opened()))) seek();
    else if (chosen) act("new_chat", chosen);
    if (page() === "chat") chosen = null;
    if (page() === "chat") focusAsk();
  }
  addEventListener("hashchange", arrive);
  root.dataset.page = page();

  // The conversation asked for and not yet shown, and those given up for another: replies come in any order.
  let sought = null, looking = 0;
  const abandoned = new Set();
  function seek() {
    if (sought !== null && sought !== opened()) abandoned.add(sought);
    sought = opened();
    abandoned.delete(sought);
    // At once, so that a question typed before the server has replied goes where it belongs.
    write("#conversation", sought);
    act(sought ? "open_conversation" : "new_chat", { id: sought, ...chosen });
    look(50);
  }
  /** An unknown conversation opened from the empty page changes nothing but the hidden box. */
  function look(times) {
    clearTimeout(looking);
    if (!sought || !times) return;
    if (held("#conversation") || current() || abandoned.has("")) { looking = setTimeout(look, 200, times - 1); return; }
    sought = null;
    if (page() === "chat") history.replaceState(null, "", "#/");
  }

  function focusAsk() {
    // On a phone the keyboard would cover half the page.
    if (matchMedia("(pointer: fine)").matches && !$("dialog[open]")) setTimeout(() => $("#ask textarea")?.focus(), 0);
  }

  /** A space that was just made, or one that is gone: the address follows what is shown. */
  function spaceShown() {
    const head = $("#knowledge-top [data-view]");
    if (!head || page() !== "knowledge") return;
    const id = head.dataset.space ?? "";
    if ((place()[1] ?? "") !== id) history.replaceState(null, "", id ? `#/knowledge/${id}` : "#/knowledge");
  }

  // --- What changed in the thread
  let atEnd = true;
  const scroller = () => $("#scroll");
  const nearEnd = (box) => box.scrollHeight - box.scrollTop - box.clientHeight < 90;
  const toEnd = () => { const box = scroller(); if (box) { box.scrollTop = box.scrollHeight; atEnd = true; mark(); } };
  const mark = () => root.classList.toggle("scrolled-up", !atEnd);
  let lastConversation = null, lastTurn, started = null, wasRunning = false, frame = 0;
  // When a question went off that the server has not begun to answer; 0 if none.
  let sentAt = 0;

  function changed() {
    frame = 0;
    const id = current();
    const live = running();
    root.classList.toggle("answering", live !== null);
    root.classList.toggle("answering-here", here());
    root.classList.toggle("is-empty", !!$("#thread .empty") && !here());
    for (const row of document.querySelectorAll(".conversation")) {
      currentIf(row, row.dataset.conversation === id && id !== "");
      row.classList.toggle("busy", live !== null && row.dataset.conversation === live);
    }
    if (live !== null && !wasRunning) { started = performance.now(); root.classList.remove("stopping"); tick(); toEnd(); }
    if (live === null && wasRunning) {
      started = null;
      root.classList.remove("stopping");
      // Not out of another field that the reader has gone to meanwhile.
      const field = document.activeElement;
      if (page() === "chat" && (!field || field === document.body || field.closest("#composer"))) focusAsk();
    }
    // A short answer may begin and end between two looks; its turn is there then.
    const turn = $("#thread .turn:last-child")?.dataset.question;
    if (live === null && (wasRunning || turn !== lastTurn)) sentAt = 0;
    lastTurn = turn;
    wasRunning = live !== null;
    if (id === sought) sought = null;
    if (returns > 0 && live !== null && id !== live && sought !== live && $("#thread [data-conversation]")) {
      // What was left for the question is shown over it: its reply came late. Back to the question.
      const left = returns - 1;
      lastConversation = id;
      history.replaceState(null, "", `#/c/${live}`);
      seek();
      returns = left;
    } else if (id !== lastConversation && $("#thread [data-conversation]")) {
      const first = lastConversation === null;
      lastConversation = id;
      if (page() === "chat" && opened() !== id && abandoned.delete(id)) seek();
      else if (page() === "chat" && opened() !== id) {
        history[first || id === "" ? "replaceState" : "pushState"](null, "", id ? `#/c/${id}` : "#/");
      }
      setTimeout(toEnd, 0);
      if (page() === "chat") focusAsk();
    } else if (atEnd) toEnd();
  }
  const soon = () => { frame ||= setTimeout(changed, 16); };
  const watcher = new MutationObserver(soon);

  function tick() {
    if (started === null) return;
    // Drawn by a style: the server redraws the turn itself many times a second.
    const seconds = Math.floor((performance.now() - started) / 1000);
    const shown = seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    root.style.setProperty("--elapsed", `"${shown}"`);
    setTimeout(tick, 250);
  }

  // --- Model being loaded: look again every second until it is there.
  let beat = 0;
  setInterval(() => {
    beat += 1;
    const badge = $("#model-badge");
    const changing = badge?.dataset.state === "loading" || badge?.hasAttribute("data-preparing");
    const live = running();
    // A reader who has pressed Stop is heard again until the answer has ended.
    if (trigger && live !== null && root.classList.contains("stopping")) trigger("stop", { conversation: live });
    const working = live !== null || root.classList.contains("running-sql") || $(".sql-box[data-ticket]");
    const nudge = (nudges > 0 && beat % 2 === 0) || (working && beat % 4 === 0);
    if (nudges > 0 && beat % 2 === 0) nudges -= 1;
    if (trigger && (nudge || (!document.hidden && (changing || (page() === "models" && beat % 5 === 0))))) trigger("model_status", {});
    if (trigger && !document.hidden && page() === "models" && $("[data-downloading]")) trigger("download_status", {});
  }, 1000);

  // --- Work in the background: look again every second while some is under way and somebody looks.
  let beats = 0, looked = 0, pressed = null;
  // A reply between press and release may move the pressed button or make it another row's (Gradio draws over the
  // elements that are there): what was pressed counts, wherever it is then.
  addEventListener("pointerdown", (event) => {
    const button = event.target.closest?.("button[data-action]:enabled");
    pressed = { x: event.clientX, y: event.clientY, button, facts: { ...button?.dataset }, box: button?.getBoundingClientRect() };
  }, true);
  addEventListener("pointerup", (event) => {
    const { x, y, button, facts, box } = pressed ?? {};
    if (!button || event.button !== 0 || event.pointerType !== "mouse" || Math.hypot(event.clientX - x, event.clientY - y) > 4) return;
    const inside = event.clientX > box.left && event.clientX < box.right && event.clientY > box.top && event.clientY < box.bottom;
    if (inside && !button.contains(document.elementFromPoint(event.clientX, event.clientY))) press(button, facts);
  }, true);
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => { setTimeout(() => { pressed = null; }, 50); }, true);
  /** What of the documents is on the page, and as of when. */
  function where() {
    const [head, mark] = [$("#knowledge-top [data-view]"), $("#knowledge-progress .mark")];
    const next = $("#knowledge-body .pager .to-next");
    return {
      view: page() === "knowledge" ? head?.dataset.view ?? "" : "", id: head?.dataset.space ?? "",
      page: next ? String(next.dataset.page - 1) : "1", seen: mark?.dataset.seen ?? "",
    };
  }
  function poll() {
    // One question at a time; a reply that is lost is not waited for.
    const told = beats === 0 || $("#activity .mark")?.dataset.beat === String(beats);
    if (!trigger || (!told && performance.now() - looked < 5000)) return;
    beats += 1;
    looked = performance.now();
    trigger("poll", { beat: String(beats), ...where(), at: JSON.stringify(where()) });
  }
  // What is pressed must not be drawn anew under the pointer.
  setInterval(() => { if (!document.hidden && !pressed && $("[data-running]")) poll(); }, 1000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });

  // --- Dialogs, notices, copying
  /** A field of a dialog: { name, label, kind: "text" | "url" | "area", optional, hint, value }. */
  function field({ name, label, kind, optional, hint, value }) {
    const input = document.createElement(kind === "area" ? "textarea" : "input");
    Object.assign(input, { name, value: value ?? "", required: !optional, placeholder: hint ?? "" });
    if (kind === "area") input.rows = 9; else input.maxLength = kind === "url" ? 2000 : 80;
    // Not type=url: an address without its scheme is welcome.
    if (kind === "url") { input.inputMode = "url"; input.autocapitalize = "off"; input.spellcheck = false; }
    input.setAttribute("aria-label", label);
    return input;
  }
  /** The values of the fields by name, null when the reader thinks better of it. */
  function dialog({ title, fields = [], ok, danger }) {
    return new Promise((answer) => {
      const box = document.createElement("dialog");
      box.className = "ask-dialog";
      const form = document.createElement("form");
      form.method = "dialog";
      const text = document.createElement("p");
      text.textContent = title;
      form.append(text);
      const inputs = fields.map(field);
      inputs.forEach((input, at) => {
        if (fields.length === 1 || !fields[at].label) return form.append(input);
        const label = document.createElement("label");
        label.append(Object.assign(document.createElement("span"), { textContent: fields[at].label }), input);
        form.append(label);
      });
      if (fields.some((one) => one.kind === "area")) box.classList.add("roomy");
      const no = Object.assign(document.createElement("button"), { type: "button", textContent: word("cancel"), className: "button plain cancel" });
      const yes = Object.assign(document.createElement("button"), { type: "submit", textContent: ok || word("save"), className: `button ok ${danger ? "danger" : ""}` });
      const row = document.createElement("div");
      row.append(no, yes);
      form.append(row);
      box.append(form);
      document.body.append(box);
      const close = (result) => { box.close(); box.remove(); answer(result); };
      no.onclick = () => close(null);
      box.oncancel = () => close(null);
      box.onclick = (event) => { if (event.target === box) close(null); };
      form.onsubmit = () => {
        const values = Object.fromEntries(inputs.map((input) => [input.name, input.value.trim()]));
        close(inputs.some((input) => input.required && !values[input.name]) ? null : values);
      };
      box.showModal();
      inputs.length ? inputs[0].select() : (danger ? no : yes).focus();
    });
  }

  function notice(text) {
    $("#notice")?.remove();
    const box = Object.assign(document.createElement("div"), { id: "notice", textContent: text });
    box.setAttribute("role", "status");
    document.body.append(box);
    setTimeout(() => box.remove(), 4000);
  }

  async function copy(button) {
    const kind = button.dataset.copy;
    const text = kind === "code" ? button.closest("figure").querySelector("pre").textContent
      : kind === "question" ? button.closest(".turn").querySelector(".bubble").textContent : button.dataset.text;
    try { await navigator.clipboard.writeText(text); } catch {
      // Without https there is no clipboard API.
      const area = Object.assign(document.createElement("textarea"), { value: text });
      document.body.append(area); area.select(); document.execCommand("copy"); area.remove();
    }
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), 1500);
  }

  function download(file) {
    if (!file) return;
    file = JSON.parse(file);
    const content = file.base64 ? Uint8Array.from(atob(file.base64), (letter) => letter.charCodeAt(0)) : file.text;
    const url = URL.createObjectURL(new Blob([content], { type: file.type }));
    Object.assign(document.createElement("a"), { href: url, download: file.name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  // --- A citation opens its passage
  function cite(button) {
    const card = button.closest(".answer")?.querySelector(`.passage[data-number="${Number(button.dataset.number)}"]`);
    if (!card) return;
    const fold = card.parentElement.closest("details");
    if (fold) fold.open = true;
    card.open = true;
    atEnd = false;
    (card.querySelector("mark") ?? card).scrollIntoView({ block: "center", behavior: "smooth" });
    card.classList.add("flash");
    setTimeout(() => card.classList.remove("flash"), 1600);
  }

  // What the reader unfolds is brought into view; "toggle" does not bubble.
  document.addEventListener("toggle", (event) => {
    const fold = event.target;
    if (fold instanceof HTMLDetailsElement && fold.open && fold.closest("#thread")) fold.scrollIntoView({ block: "nearest" });
  }, true);

  // --- Edit a question where it stands
  function edit(button) {
    // The thread is drawn anew when the answer ends, without the box.
    if (asking()) return notice(word("stillAnswering"));
    const turn = button.closest(".turn");
    const bubble = turn.querySelector(".bubble");
    if (turn.querySelector(".edit-box")) return;
    const area = Object.assign(document.createElement("textarea"), { value: bubble.textContent, className: "edit-box" });
    const row = Object.assign(document.createElement("div"), { className: "edit-row" });
    const no = Object.assign(document.createElement("button"), { type: "button", className: "button plain", textContent: word("cancel") });
    const yes = Object.assign(document.createElement("button"), { type: "button", className: "button edit-send", textContent: $("#send")?.textContent.trim() || "OK" });
    row.append(no, yes);
    const box = Object.assign(document.createElement("div"), { className: "editing" });
    box.append(area, row);
    turn.querySelector(".question").after(box);
    turn.classList.add("is-edited");
    const close = () => { box.remove(); turn.classList.remove("is-edited"); };
    const send = () => {
      const text = area.value.trim();
      if (!text || !mayAsk()) return;
      close();
      act("ask", { id: turn.dataset.question, question: text });
    };
    no.onclick = close;
    yes.onclick = send;
    area.onkeydown = (event) => {
      if (event.key === "Escape") close();
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
    };
    area.style.height = `${Math.min(area.scrollHeight + 4, 320)}px`;
    area.focus();
  }

  const asking = () => running() !== null || (sentAt !== 0 && performance.now() - sentAt < 3000);
  /** One answer at a time: says so when another one is being written. */
  function busy() {
    if (!asking()) return false;
    if (running() !== null && !here()) notice(word("stillAnswering"));
    return true;
  }
  /** Whether a question goes off now; from here on it counts as being answered. */
  function mayAsk() {
    if (busy()) return false;
    sentAt = performance.now();
    return true;
  }

  async function press(button, given = pressed?.button === button ? pressed.facts : button.dataset) {
    const { action, confirm, prompt, ok, fields, with: taken, ...facts } = given;
    if (taken) facts.sql = held(taken).trim();
    if (taken && !facts.sql) return;
    for (const select of button.parentElement?.querySelectorAll("select[name]") ?? []) facts[select.name] = select.value;
    if (action === "ask" && !mayAsk()) return;
    if (confirm && !(await dialog({ title: confirm, ok, danger: /^(delete|empty)/.test(action) }))) return;
    if (prompt) {
      const asked = fields ? JSON.parse(fields) : [{ name: "value", label: prompt, value: facts.value }];
      const values = await dialog({ title: prompt, fields: asked, ok });
      if (values === null) return;
      Object.assign(facts, values);
    }
    if (action === "open_conversation") return go(`#/c/${facts.id}`);
    if (action === "new_chat") return go("#/");
    if (action === "show_knowledge") return go("#/knowledge");
    if (action === "open_space" && !facts.page) return go(`#/knowledge/${facts.id}`);
    act(action, facts);
  }

  document.addEventListener("click", (event) => {
    const target = event.target;
    if (!(target instanceof Element)) return;
    const on = (selector) => target.closest(selector);
    let hit;
    if (on("#send")) send();
    else if (on("#stop")) { root.classList.add("stopping"); act("stop", { conversation: running() ?? current() }); }
    else if ((hit = on("[data-copy]"))) copy(hit);
    else if ((hit = on(".edit-question"))) edit(hit);
    else if ((hit = on(".add-folder"))) chooseFolder();
    else if ((hit = on("[data-action]:not(form)"))) press(hit);
    else if ((hit = on(".citation"))) cite(hit);
    else if ((hit = on("[data-ask]"))) askAbout(hit.dataset.ask, hit.dataset.source);
    else if ((hit = on(".peek"))) peek(hit.dataset.table);
    else if (on(".theme-switch")) { store.set("dbgpt_theme", root.classList.contains("night") ? "light" : "dark"); paint(); }
    else if ((hit = on(".language-switch"))) {
      document.cookie = `dbgpt_language=${hit.dataset.language};path=/;max-age=31536000;samesite=lax`;
      location.reload();
    }
    else if (on(".open-sidebar")) root.classList.toggle("with-sidebar");
    else if (on(".sidebar-close")) root.classList.remove("with-sidebar");
    else if (on(".toggle-tuning")) root.classList.toggle("with-tuning");
    else if (on("#to-end")) toEnd();
    else if (!on("#tuning-box")) root.classList.remove("with-tuning");
    if (root.classList.contains("with-sidebar") && !on("#sidebar, .open-sidebar, dialog")) root.classList.remove("with-sidebar");
  });

  // From a space or a connection into the chat, in the mode that asks it.
  function askAbout(mode, source) {
    chosen = { mode, source };
    go("#/");
  }
  function peek(table) {
    const quoted = /^[A-Za-z_][A-Za-z0-9_]*$/.test(table) ? table : `\`${table.replaceAll("`", "``")}\``;
    write("#sql-editor", `SELECT * FROM ${quoted} LIMIT 20`);
    setTimeout(() => $("#run-sql").click(), 50);
  }

  /** What is in the box goes off; an empty box sends nothing. */
  function send() {
    const question = held("#ask").trim();
    if (question && mayAsk()) act("ask", { question, box: "yes" });
  }

  // --- Keyboard. While an input method composes Chinese, Enter belongs to it.
  let composing = false;
  addEventListener("compositionstart", () => { composing = true; }, true);
  addEventListener("compositionend", () => { setTimeout(() => { composing = false; }, 0); }, true);
  addEventListener("keydown", (event) => {
    const field = event.target;
    if (!(field instanceof Element)) return;
    if (event.key === "Enter" && (event.isComposing || event.keyCode === 229 || composing)) { event.stopImmediatePropagation(); return; }
    if (event.key === "Enter" && !event.shiftKey && field.closest("#ask")) { event.preventDefault(); event.stopImmediatePropagation(); send(); return; }
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && field.closest("#sql-editor")) {
      event.preventDefault(); event.stopImmediatePropagation(); $("#run-sql").click(); return;
    }
    if (event.key === "Escape") root.classList.remove("with-tuning", "with-sidebar");
  }, true);

  // --- Choices: what is chosen goes into the hidden box that handlers read, or to a handler of its own.
  document.addEventListener("change", (event) => {
    const box = event.target;
    if (!(box instanceof HTMLSelectElement)) return;
    if (box.dataset.into) { write(`#${box.dataset.into}`, box.value); otherSource(); }
    if (!box.dataset.change) return;
    // Columns go with the kind of chart that draws them; another kind has its own that fit best.
    const { change, value, ...facts } = box.dataset;
    const group = (box.name !== "kind" && box.closest(".chart-tools")?.querySelectorAll("select")) || [box];
    act(change, { ...facts, ...Object.fromEntries([...group].map((one) => [one.name, one.value])) });
  });
  document.addEventListener("submit", (event) => {
    const form = event.target.closest("form[data-action]");
    if (!form) return;
    event.preventDefault();
    const { action, ...facts } = form.dataset;
    act(action, { ...facts, ...Object.fromEntries(new FormData(form)) });
  });
  /** Files thrown into this chat that the next question will not ask are shown paler. */
  function otherSource() {
    const chips = $("#attachments [data-attached]");
    chips?.classList.toggle("idle", held("#source-value") !== chips.dataset.attached);
  }
  // A choice the reader has touched ignores its options' "selected"; the server's word counts.
  new MutationObserver((changes) => {
    // A notice of Gradio's says that what was asked did not come to be.
    const told = (node) => node instanceof Element && (node.closest(".toast-wrap > *") || node.querySelector(".toast-wrap > *"));
    if (changes.some((change) => [...change.addedNodes].some(told))) { sentAt = 0; window.dbgpt.runs(false); }
    for (const box of document.querySelectorAll("select[data-value]")) {
      if (box.told !== box.dataset.value + box.options.length) { box.value = box.dataset.value; box.told = box.dataset.value + box.options.length; }
    }
  }).observe(document.body, { childList: true, subtree: true, attributes: true, attributeFilter: ["data-value"] });

  // --- Files dropped or pasted
  const files = (event) => [...(event.dataTransfer?.items ?? event.clipboardData?.items ?? [])].some((item) => item.kind === "file");
  function give(list) {
    const input = $(page() === "knowledge" ? "#knowledge-upload input[type=file]" : "#composer input[type=file]");
    if (!input || !list.length) return;
    const bag = new DataTransfer();
    for (const file of list) bag.items.add(file);
    input.files = bag.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }

  // --- A folder: its files under their ways in it; other kinds than can be read are left out and counted.
  function giveFolder(found) {
    const button = $(".add-folder");
    const kinds = button?.dataset.kinds.split(" ") ?? [];
    const seen = found.filter(({ path }) => !path.split("/").some((part) => part.startsWith(".")));
    const list = seen.filter(({ path }) => kinds.some((kind) => path.toLowerCase().endsWith(kind)));
    if (list.length < seen.length) notice(button.dataset.leftOut.replace("{count}", seen.length - list.length));
    give(list.map(({ file, path }) => new File([file], path, { type: file.type, lastModified: file.lastModified })));
  }
  function chooseFolder() {
    const input = Object.assign(document.createElement("input"), { type: "file", multiple: true, webkitdirectory: true });
    input.onchange = () => giveFolder([...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name })));
    input.click();
  }
  /** The files of something dropped, however deep. */
  async function inside(entry) {
    if (entry.isFile) return [{ file: await new Promise((take, fail) => entry.file(take, fail)), path: entry.fullPath.replace(/^\//, "") }];
    const reader = entry.createReader(), found = [];
    // A reader hands out its entries a part at a time and ends with none.
    for (;;) {
      const part = await new Promise((take, fail) => reader.readEntries(take, fail));
      if (!part.length) return found;
      for (const one of part) found.push(...await inside(one));
    }
  }
  async function dropped(event) {
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const plain = [...event.dataTransfer.files];
    if (!entries.some((entry) => entry.isDirectory)) return give(plain);
    const found = await Promise.all(entries.map(inside));
    giveFolder(found.flat());
  }
  let depth = 0;
  const dropping = () => ["chat", "knowledge"].includes(page());
  addEventListener("dragenter", (event) => { if (files(event) && dropping()) { depth += 1; root.classList.add("dropping"); $("#drop-hint").textContent = word(page() === "knowledge" ? "dropKnowledge" : "dropHere"); } });
  addEventListener("dragleave", () => { depth = Math.max(0, depth - 1); if (!depth) root.classList.remove("dropping"); });
  addEventListener("dragover", (event) => { if (files(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    depth = 0; root.classList.remove("dropping");
    if (!files(event)) return;
    event.preventDefault(); event.stopImmediatePropagation();
    if (dropping()) dropped(event);
  }, true);
  addEventListener("paste", (event) => {
    const list = [...(event.clipboardData?.files ?? [])];
    // A cell or a paragraph copied from an office program brings its picture along.
    if (list.length && page() === "chat" && !event.clipboardData.types.includes("text/plain")) { event.preventDefault(); give(list); }
  }, true);

  window.dbgpt = {
    /** Called by the hidden component once it is there. */
    connect(way) { trigger = way; for (const [name, facts] of waiting.splice(0)) act(name, facts); },
    opened,
    download,
    /** A look in the background has come back: drawn if the reader is still where it was taken. */
    found(text, top, progress, body) {
      const told = text ? JSON.parse(text) : {};
      if (told.at !== JSON.stringify(where())) return ["", top, progress, body];
      return ["", told.top ?? top, told.progress, told.body ?? body];
    },
    $, act, held, word, write,
    /** Do what changes heights in the thread, and leave the reader where they are. */
    inPlace(change) {
      atEnd = false;
      change();
      setTimeout(() => { atEnd = nearEnd(scroller()); mark(); }, 60);
    },
    /** The first content has arrived. */
    ready() {
      root.lang = $("#words")?.lang ?? "en";
      const drop = Object.assign(document.createElement("div"), { id: "drop-hint", textContent: word("dropHere") });
      const down = Object.assign(document.createElement("button"), { id: "to-end", type: "button" });
      down.setAttribute("aria-label", word("jumpDown"));
      document.body.append(drop);
      $("#composer").append(down);
      for (const id of ["#thread", "#live", "#conversations"]) watcher.observe($(id), { childList: true, subtree: true, characterData: true, attributes: true, attributeFilter: ["data-conversation"] });
      new MutationObserver(spaceShown).observe($("#knowledge-top"), { childList: true, subtree: true });
      new MutationObserver(() => setTimeout(otherSource, 60)).observe($("#composer"), { childList: true, subtree: true });
      if (!("webkitdirectory" in HTMLInputElement.prototype)) root.classList.add("no-folders");
      window.dbgpt.watchRows();
      scroller().addEventListener("scroll", () => { atEnd = nearEnd(scroller()); mark(); }, { passive: true });
      root.classList.add("is-ready");
      changed();
      arrive();
    },
  };
})();
