// Queries in the page: edited where they stand, run and stopped, explained, drawn anew; and the values of a chart.
(() => {
  const root = document.documentElement;
  const { $, act, held, word, write, inPlace } = window.dbgpt;

  // --- Queries: an editor that colours what is typed, where the query stands and on the Data page
  const TOKEN = /(--[^\n]*|\/\*[^]*?(?:\*\/|$))|('(?:[^'\\]|''|\\[^])*'?)|("[^"]*"?|`[^`]*`?)|(\b\d+(?:\.\d+)?\b)|([A-Za-z_]\w*)/g;
  const KEYWORDS = new Set(("select from where and or not in is null like between exists as on using join inner left right full outer "
    + "cross natural group by having order asc desc limit offset union all except intersect distinct case when then else end with "
    + "recursive over partition rows range preceding following unbounded current row filter cast interval true false").split(" "));
  const NAMES = ["c1", "s1", "", "m", "k"];
  /** A query as coloured text; what is not known stays plain. */
  function coloured(sql) {
    const shown = document.createDocumentFragment();
    let from = 0;
    for (const match of sql.matchAll(TOKEN)) {
      const kind = match.slice(1).findIndex((part) => part !== undefined);
      const name = kind === 4 && !KEYWORDS.has(match[0].toLowerCase()) ? "" : NAMES[kind];
      if (!name) continue;
      shown.append(sql.slice(from, match.index), Object.assign(document.createElement("span"), { className: name, textContent: match[0] }));
      from = match.index + match[0].length;
    }
    // A last empty line has no height of its own.
    shown.append(`${sql.slice(from)}\n`);
    return shown;
  }
  const colour = (area) => $("code", area.parentElement).replaceChildren(coloured(area.value));
  document.addEventListener("input", (event) => {
    if (!event.target.matches?.(".sql-edit textarea")) return;
    colour(event.target);
    // What was explained is another query now.
    partOf("explained", $(".edit-sql", event.target.closest(".query") ?? document.createElement("i"))?.dataset.of ?? "editor")?.replaceChildren();
  });

  const ticket = () => Math.random().toString(36).slice(2);
  /** The place of a part of a result in the page. */
  const partOf = (part, of) => [...document.querySelectorAll("[data-part]")].find((one) => one.dataset.part === part && one.dataset.of === of);

  /** The query of an answer becomes an editor where it stands. */
  function editSql(button) {
    const query = button.closest(".query"), figure = $("figure", query), of = button.dataset.of;
    if ($(".sql-edit", query)) return;
    const box = document.createElement("div");
    box.className = "sql-box";
    const editor = Object.assign(document.createElement("div"), { className: "sql-edit" });
    const under = document.createElement("pre");
    under.setAttribute("aria-hidden", "true");
    under.append(document.createElement("code"));
    const area = Object.assign(document.createElement("textarea"), { value: $("pre", figure).textContent, spellcheck: false, autocapitalize: "off" });
    area.setAttribute("aria-label", word("sqlEditor"));
    editor.append(under, area);
    const row = Object.assign(document.createElement("div"), { className: "edit-row" });
    const no = Object.assign(document.createElement("button"), { type: "button", className: "button plain cancel", textContent: word("cancel") });
    const stop = Object.assign(document.createElement("button"), { type: "button", className: "button plain stop-sql", textContent: word("stop") });
    const yes = Object.assign(document.createElement("button"), { type: "button", className: "button rerun", textContent: word("run") });
    row.append(no, stop, yes);
    box.append(editor, row);
    figure.before(box);
    query.classList.add("is-edited");
    const close = () => { box.remove(); query.classList.remove("is-edited"); partOf("problem", of)?.replaceChildren(); };
    const run = () => {
      if (!area.value.trim() || box.dataset.ticket) return;
      box.dataset.ticket = ticket();
      partOf("problem", of)?.replaceChildren();
      act("rerun_sql", { of, sql: area.value.trim(), ticket: box.dataset.ticket });
    };
    no.onclick = close;
    yes.onclick = run;
    stop.onclick = () => act("cancel_sql", { ticket: box.dataset.ticket });
    area.onkeydown = (event) => {
      if (event.isComposing) return;
      if (event.key === "Escape") close();
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); }
    };
    colour(area);
    area.focus();
  }
  /** In words; a second press takes them away. */
  function explainSql(button) {
    const of = button.dataset.of, place = partOf("explained", of);
    if (place?.childElementCount) return place.replaceChildren();
    const area = of === "editor" ? $("#sql-editor textarea") : $(".sql-edit textarea", button.closest(".query"));
    const sql = area?.value.trim() ?? "";
    if (of !== "editor" || sql) act("explain_sql", { of, sql, connection: held("#connection-value") });
  }
  /** New drawings from the server, each in the place of the old one; the rest of the page stays as it is. */
  function draw(parts) {
    tip.remove();
    for (const { part, of, html } of parts) {
      const place = partOf(part, of);
      if (!place) continue;
      const focus = place.contains(document.activeElement) ? document.activeElement : null;
      const again = focus && (focus.name ? `[name="${CSS.escape(focus.name)}"]` : [...focus.classList].map((name) => `.${CSS.escape(name)}`).join(""));
      place.innerHTML = html;
      if (part === "problem") delete place.closest(".query")?.querySelector(".sql-box")?.dataset.ticket;
      if (again) $(again, place)?.focus();
    }
  }

  // --- Values of a chart under the pointer
  const tip = Object.assign(document.createElement("div"), { id: "tip" });
  tip.setAttribute("role", "tooltip");
  document.addEventListener("pointermove", (event) => {
    const mark = event.target instanceof Element ? event.target.closest("[data-tip]") : null;
    if (!mark) return tip.remove();
    if (!tip.isConnected) document.body.append(tip);
    if (tip.textContent !== mark.dataset.tip) tip.textContent = mark.dataset.tip;
    const x = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    const y = event.clientY + 18 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 10 : event.clientY + 18;
    tip.style.transform = `translate(${Math.max(4, x)}px, ${y}px)`;
  });
  addEventListener("scroll", () => tip.remove(), true);

  // One's own query: the sign that it runs ends with the reply, and by itself should none come.
  let runEnds = 0, ownRun = "";
  function runOwn() {
    const sql = held("#sql-editor").trim();
    if (!sql || ownRun) return;
    ownRun = ticket();
    $("#cancel-sql").dataset.ticket = ownRun;
    runs(true);
    act("run_sql", { sql, ticket: ownRun });
  }
  function runs(yes) {
    clearTimeout(runEnds);
    root.classList.toggle("running-sql", yes);
    if (yes) runEnds = setTimeout(runs, 300000, false);
    else ownRun = "";
  }
  document.addEventListener("click", (event) => {
    const on = (selector) => (event.target instanceof Element ? event.target.closest(selector) : null);
    let hit;
    if (on("#run-sql")) runOwn();
    else if ((hit = on(".edit-sql"))) editSql(hit);
    else if ((hit = on(".explain-sql"))) explainSql(hit);
    else if ((hit = on(".use-sql"))) { write("#sql-editor", hit.dataset.sql); $("#sql-editor textarea").focus(); }
  });

  Object.assign(window.dbgpt, {
    runs,
    /** New drawings of parts, as JSON. */
    patch: (parts) => inPlace(() => draw(JSON.parse(parts))),
    /** Look for the end of one's own query. */
    watchRows() {
      new MutationObserver(() => { if (ownRun && $("#sql-result .mark")?.dataset.ticket === ownRun) runs(false); })
        .observe($("#sql-result"), { childList: true, subtree: true });
    },
  });
})();
