"use strict";
// A review page that needs no network and no server: items stand in the page, answers in a file.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const items = data.items, questions = data.questions;
  const $ = id => document.getElementById(id);
  const state = { rater: data.rater, at: 0, marked: 0, answers: {}, others: [] };
  const undone = [];            // what each change replaced: [item key, answer before it]
  let isDirty = false;          // answered since the last save to a file
  let editing = null;           // a text box is open: the answer and the undo steps before it
  let storage = null;

  // ---- what a rater has said ---------------------------------------------------------------

  const keyOf = item => item.pair ? item.pair.join(" ") : item.id;
  const blank = () => ({ choices: {}, correction: null, comment: "", skipped: null, lead: 0 });
  const answerOf = item => state.answers[keyOf(item)] || blank();
  const isAnswered = a =>
    Boolean(a.skipped) || a.correction !== null || Object.keys(a.choices).length > 0;
  const isDone = a =>
    Boolean(a.skipped) || questions.every(q => a.choices[q.name]) || (a.correction !== null && questions.length === 1);

  // FNV-1a with a final mix: a fair coin per rater and pair that falls the same way each time.
  function order(item) {
    let h = 2166136261;
    for (const c of `${state.rater}\0${keyOf(item)}`) h = Math.imul(h ^ c.codePointAt(0), 16777619);
    h = Math.imul(h ^ (h >>> 16), 2246822507);
    return ((h ^ (h >>> 13)) >>> 7) & 1 ? "BA" : "AB";
  }

  function newId() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, b => b.toString(16).padStart(2, "0")).join("");
  }

  const stamp = () => ({ id: newId(), at: new Date().toISOString() });

  function change(edit) {
    const item = items[state.at], key = keyOf(item), before = JSON.stringify(answerOf(item));
    const answer = JSON.parse(before);
    edit(answer);
    if (JSON.stringify(answer) === before) return false;
    answer.lead += seconds();
    undone.push([key, before]);
    put(key, answer);
    return true;
  }

  function put(key, answer) {
    if (isAnswered(answer) || answer.comment) state.answers[key] = answer;
    else delete state.answers[key];
    isDirty = true;
    keep();
    progress();
  }

  function choose(number) {
    const question = questions[state.marked], option = question.options[number];
    if (!option) return;
    change(answer => {
      const had = answer.choices[question.name];
      answer.skipped = null;
      if (!had || had.option !== option.id) answer.choices[question.name] = { option: option.id, ...stamp() };
    });
    const place = state.marked, hadFocus = $("questions").contains(document.activeElement);
    const open = questions.findIndex(q => !answerOf(items[state.at]).choices[q.name]);
    if (open >= 0) state.marked = open;
    render();
    if (hadFocus) focusChoice(place, number);
    tell(`${question.name}: ${option.text}`);
  }

  function skip() {
    change(answer => { answer.choices = {}; answer.correction = null; answer.skipped = stamp(); });
    tell("Skipped");
    step(1);
  }

  function undo() {
    const last = undone.pop();
    if (!last) return;
    const [key, before] = last;
    put(key, JSON.parse(before));
    state.at = Math.max(0, items.findIndex(item => keyOf(item) === key));
    show();
    tell("Undone");
  }

  // ---- time spent: only while the page can be seen -----------------------------------------

  let since = 0, banked = 0;

  function seconds() {
    const now = performance.now(), spent = banked + (since ? (now - since) / 1000 : 0);
    banked = 0;
    since = document.hidden ? 0 : now;
    return spent;
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) banked += since ? (performance.now() - since) / 1000 : 0;
    since = document.hidden ? 0 : performance.now();
  });

  // ---- rows of a label file ----------------------------------------------------------------

  function rows() {
    const found = [];
    for (const item of items) {
      const answer = state.answers[keyOf(item)];
      if (answer && isAnswered(answer)) found.push(...rowsOf(item, answer));
    }
    return found.concat(state.others);
  }

  function rowsOf(item, answer) {
    const common = item.pair ? { pair_a: item.pair[0], pair_b: item.pair[1] } : { interaction_id: item.id };
    Object.assign(common, { source_id: state.rater, source_type: "human", blinded: true });
    if (item.pair) common.presented_order = order(item);
    Object.assign(common, data.columns);
    const lead = { lead_time_s: Math.round(answer.lead * 10) / 10 };
    const texts = answer.comment.trim() ? { rationale: answer.comment.trim() } : {};
    if (answer.skipped)
      return [{ ...common, name: questions[0].name, status: "discarded", ...texts, ...lead, ...signed(answer.skipped, answer) }];
    const found = [];
    questions.forEach((question, place) => {
      const choice = answer.choices[question.name];
      const hasMore = place === 0 && answer.correction !== null;
      if (!choice && !hasMore) return;
      const row = { ...common, name: question.name };
      if (choice) Object.assign(row, said(question, choice.option, item));
      if (hasMore) row.correction = { role: "assistant", content: answer.correction.text };
      const last = hasMore && (!choice || answer.correction.at > choice.at) ? answer.correction : choice;
      found.push({ ...row, ...(found.length ? {} : texts), ...lead, ...signed(last, found.length ? null : answer) });
    });
    return found;
  }

  // A comment written later is a later judgement.
  const signed = (mark, answer) => {
    const noted = answer && answer.noted && answer.noted.at > mark.at ? answer.noted : mark;
    return { created_at: noted.at, assessment_id: noted.id };
  };

  function said(question, option, item) {
    if (question.kind === "rating") return { value: Number(option) };
    if (question.kind === "pass_fail") return { value: option === "pass" ? 1 : 0 };
    if (question.kind !== "preference" || (option !== "first" && option !== "second")) return { label: option };
    return { label: (option === "first") === (order(item) === "AB") ? "A" : "B" };
  }

  // ---- and back ----------------------------------------------------------------------------

  function load(text, name) {
    const known = new Map(items.map(item => [keyOf(item), item]));
    let bad = 0, taken = 0;
    const found = [];
    for (const line of text.replace(/^\uFEFF/, "").split("\n")) {
      if (!line.trim()) continue;
      try { found.push(JSON.parse(line)); } catch { bad += 1; }
    }
    const raters = [...new Set(found.map(row => row.source_id).filter(Boolean))];
    if (!state.rater && raters.length === 1) begin(raters[0]);
    const others = raters.filter(rater => rater !== state.rater);
    if (others.length) {
      warn(`${name} holds answers of ${others.join(", ")}, and you are ${state.rater || "not named yet"}: not opened.`);
      return;
    }
    for (const row of found) {
      const item = known.get(row.pair_a ? `${row.pair_a} ${row.pair_b}` : row.interaction_id);
      if (item && restore(item, row)) taken += 1;
      else if (!state.others.some(other => other.assessment_id === row.assessment_id)) state.others.push(row);
    }
    keep();
    show();
    const rest = state.others.length ? `, ${state.others.length} of other items kept for the next save` : "";
    if (bad) warn(`${name}: ${bad} line(s) could not be read; ${taken} answers opened${rest}.`);
    tell(`${taken} answers opened from ${name}${rest}`);
    kept(`Opened ${name}: ${taken} answers`);
  }

  function restore(item, row) {
    const place = questions.findIndex(question => question.name === row.name);
    const mark = { id: row.assessment_id, at: row.created_at };
    if (place < 0 || !mark.id || !mark.at) return false;
    const question = questions[place], answer = JSON.parse(JSON.stringify(answerOf(item)));
    const option = row.status === "discarded" ? null : optionOf(question, row, item);
    if (row.status === "discarded") answer.skipped = newer(answer.skipped, mark);
    else if (option === null && !row.correction) return false;
    if (option !== null) answer.choices[question.name] = newer(answer.choices[question.name], { option, ...mark });
    if (row.correction) answer.correction = newer(answer.correction, { text: textOf(row.correction), ...mark });
    if (row.rationale) answer.comment = row.rationale;
    if (option !== null || row.correction) answer.skipped = null;
    answer.lead = Math.max(answer.lead, row.lead_time_s || 0);
    state.answers[keyOf(item)] = answer;
    return true;
  }

  const textOf = message => (typeof message === "string" ? message : message.content);
  const newer = (had, found) => (had && had.at > found.at ? had : found);

  function optionOf(question, row, item) {
    if (question.kind === "pass_fail") return row.value === undefined ? null : row.value ? "pass" : "fail";
    if (question.kind === "rating") return row.value === undefined ? null : String(row.value);
    if (question.kind === "preference" && (row.label === "A" || row.label === "B"))
      return (row.label === "A") === (order(item) === "AB") ? "first" : "second";
    return row.label === undefined ? null : row.label;
  }

  // ---- keeping work ------------------------------------------------------------------------

  function keep() {
    if (!storage || !state.rater) return;
    try {
      storage.setItem(slot(), JSON.stringify({ answers: state.answers, others: state.others, at: state.at }));
      kept(isDirty ? "Kept in this browser; not yet saved to a file" : "All saved");
    } catch {
      storage = null;
      cannotKeep();
    }
  }

  const slot = () => `flywheel-review/${data.page}/${state.rater}`;

  function openStorage() {
    try {
      localStorage.setItem("flywheel-review", "1");
      localStorage.removeItem("flywheel-review");
      storage = localStorage;
    } catch { cannotKeep(); }
  }

  function cannotKeep() {
    warn("This browser keeps nothing for a page opened from a file: save often with Ctrl+S.");
  }

  function remembered() {
    if (!storage) return;
    try {
      const was = JSON.parse(storage.getItem(slot()) || "null");
      if (!was) return;
      Object.assign(state, { answers: was.answers, others: was.others, at: Math.min(was.at, items.length - 1) });
      isDirty = Object.keys(was.answers).length > 0;
      kept("Went on where you were; not yet saved to a file");
    } catch { storage.removeItem(slot()); }
  }

  function save() {
    leaveText();
    const found = rows();
    if (!found.length) { tell("Nothing is answered yet"); kept("Nothing to save yet"); return; }
    const text = found.map(row => JSON.stringify(row)).join("\n") + "\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/jsonl" }));
    const safe = part => part.replace(/[^\p{L}\p{N}._-]+/gu, "_");
    link.download = `labels-${safe(data.workload)}-${safe(state.rater)}.jsonl`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    isDirty = false;
    keep();
    kept(`Saved ${found.length} judgements to ${link.download}`);
    tell(`Saved ${found.length} judgements`);
  }

  addEventListener("beforeunload", event => { if (isDirty && !storage) event.preventDefault(); });

  // ---- showing -----------------------------------------------------------------------------

  function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  const tell = text => { $("told").textContent = text; };
  const kept = text => { $("kept").textContent = text; };
  function warn(text) { $("warning").textContent = text; $("warning").hidden = false; }

  function progress() {
    const done = items.filter(item => isDone(answerOf(item))).length;
    $("progress").max = items.length;
    $("progress").value = done;
    $("count").textContent = `${done} of ${items.length} done`;
    $("undo").disabled = !undone.length;
  }

  function bubble(role, text, heading) {
    return [element("span", { className: "role", textContent: heading || role }), element("div", { className: "text", textContent: text })];
  }

  function show() {
    const item = items[state.at], isPair = Boolean(item.pair);
    state.marked = Math.max(0, questions.findIndex(q => !answerOf(item).choices[q.name]));
    $("conversation").replaceChildren(...item.messages.map(m => element("li", {}, ...bubble(m.role, m.text))));
    const shown = isPair && order(item) === "BA" ? [...item.responses].reverse() : item.responses;
    const heads = isPair ? ["First answer", "Second answer"] : ["Answer"];
    $("answers").replaceChildren(...shown.map((text, i) => {
      const box = element("article", { className: "answer" }, ...bubble("", text, heads[i]));
      box.setAttribute("aria-label", heads[i]);
      return box;
    }));
    $("correction-part").hidden = isPair;
    since = performance.now();
    banked = 0;
    render();
    scrollTo(0, 0);
    $("place").focus({ preventScroll: true });
  }

  function render() {
    const item = items[state.at], answer = answerOf(item);
    const mark = answer.skipped ? " · skipped" : isDone(answer) ? " · done" : "";
    $("place").textContent = `Item ${state.at + 1} of ${items.length}${mark}`;
    $("questions").replaceChildren(...questions.map((question, place) => fieldset(question, place, answer)));
    $("correction").value = answer.correction === null ? "" : answer.correction.text;
    $("comment").value = answer.comment;
    $("previous").disabled = state.at === 0;
    progress();
  }

  function fieldset(question, place, answer) {
    const choices = element("div", { className: "choices" });
    question.options.forEach((option, i) => {
      const input = element("input", { type: "radio", name: `q${place}`, value: option.id });
      input.checked = Boolean(answer.choices[question.name]) && answer.choices[question.name].option === option.id;
      input.addEventListener("click", () => { state.marked = place; choose(i); });
      const hint = i < 10 ? [element("kbd", { textContent: String((i + 1) % 10) })] : [];
      choices.append(element("label", {}, input, option.text, ...hint));
    });
    const made = element("fieldset", { className: place === state.marked ? "marked" : "" },
      element("legend", { textContent: question.name }), choices);
    return made;
  }

  const focusChoice = (place, i) => $("questions").children[place].querySelectorAll("input")[i].focus();

  function step(by) {
    leaveText();
    const to = state.at + by;
    if (to >= items.length) {
      const open = items.findIndex(item => !isDone(answerOf(item)));
      tell(open < 0 ? "All done: save with Ctrl+S" : "That was the last item; some are open still");
      kept(open < 0 ? "All done: save with Ctrl+S" : "The last item; press o for the next open one");
      render();
      return;
    }
    if (to < 0) return;
    state.at = to;
    keep();
    show();
  }

  function nextOpen() {
    leaveText();
    for (let i = 1; i <= items.length; i += 1) {
      const place = (state.at + i) % items.length;
      if (!isDone(answerOf(items[place]))) { state.at = place; keep(); show(); return; }
    }
    tell("Nothing is open");
    kept("All done: save with Ctrl+S");
  }

  // ---- text boxes: one undo step from entering to leaving ----------------------------------

  function enterText(box) {
    const item = items[state.at];
    if (box.id === "correction" && !box.value) box.value = item.responses[0];
    box.focus();
  }

  function typed() {
    const item = items[state.at], corrected = $("correction").value.trim(), comment = $("comment").value;
    const isChanged = !item.pair && corrected && corrected !== item.responses[0].trim();
    change(answer => {
      const had = answer.correction;
      if (!isChanged) answer.correction = null;
      else if (!had || had.text !== corrected) answer.correction = { text: corrected, ...stamp() };
      if (answer.comment !== comment) { answer.comment = comment; answer.noted = stamp(); }
      if (isChanged) answer.skipped = null;
    });
    undone.length = editing.steps;
    if (JSON.stringify(answerOf(item)) !== editing.before) undone.push([keyOf(item), editing.before]);
    progress();
  }

  function leaveText() {
    if (editing === null) return;
    typed();
    editing = null;
    const box = document.activeElement;
    if (box && box.tagName === "TEXTAREA") box.blur();
  }

  for (const id of ["correction", "comment"]) {
    $(id).addEventListener("focus", () => {
      editing = { before: JSON.stringify(answerOf(items[state.at])), steps: undone.length };
      if (id === "correction") enterText($(id));
    });
    $(id).addEventListener("blur", () => { if (editing !== null) { typed(); editing = null; render(); } });
    // A crash in the middle of a long correction must not cost it.
    $(id).addEventListener("input", () => { if (editing !== null) typed(); });
  }

  // ---- keys --------------------------------------------------------------------------------

  const COMMANDS = {
    ArrowRight: () => step(1), ArrowLeft: () => step(-1), p: () => step(-1), n: () => step(1),
    o: nextOpen, x: skip, u: undo, c: () => items[state.at].pair || enterText($("correction")),
    m: () => $("comment").focus(), l: () => $("file").click(), "?": () => $("keys").showModal(),
    ArrowDown: () => markQuestion(1), ArrowUp: () => markQuestion(-1),
  };

  function markQuestion(by) {
    state.marked = (state.marked + by + questions.length) % questions.length;
    render();
    tell(questions[state.marked].name);
  }

  document.addEventListener("keydown", event => {
    const command = event.ctrlKey || event.metaKey;
    if (command && event.key.toLowerCase() === "s") { event.preventDefault(); if (state.rater) save(); return; }
    if ($("start").open || $("keys").open) return;
    const isText = event.target.tagName === "TEXTAREA";
    if (isText) {
      if (event.key === "Escape") { leaveText(); render(); $("place").focus(); }
      return;
    }
    if (command && event.key.toLowerCase() === "z") { event.preventDefault(); undo(); return; }
    if (command || event.altKey) return;
    const isButton = event.target.tagName === "BUTTON";
    if (/^[0-9]$/.test(event.key)) { event.preventDefault(); choose((Number(event.key) + 9) % 10); }
    else if (event.key === "Enter" && !isButton) { event.preventDefault(); step(1); }
    // In a group of choices the arrows move between them, as everywhere.
    else if (event.target.type === "radio" && event.key.startsWith("Arrow")) return;
    else if (COMMANDS[event.key]) { event.preventDefault(); COMMANDS[event.key](); }
  });

  $("form").addEventListener("submit", event => { event.preventDefault(); step(1); });
  $("previous").addEventListener("click", () => step(-1));
  $("open").addEventListener("click", nextOpen);
  $("skip").addEventListener("click", skip);
  $("undo").addEventListener("click", undo);
  $("save").addEventListener("click", save);
  $("load").addEventListener("click", () => $("file").click());
  $("help").addEventListener("click", () => $("keys").showModal());
  $("file").addEventListener("change", async () => {
    const file = $("file").files[0];
    if (file) load(await file.text(), file.name);
    $("file").value = "";
  });

  // ---- start -------------------------------------------------------------------------------

  function begin(rater) {
    state.rater = rater.trim();
    $("who").textContent = `${data.workload} · ${state.rater}`;
    if ($("start").open) $("start").close();
    remembered();
    show();
  }

  openStorage();
  $("start").addEventListener("cancel", event => event.preventDefault());
  $("start-form").addEventListener("submit", event => {
    event.preventDefault();
    if ($("rater").value.trim()) begin($("rater").value);
  });
  progress();
  if (data.rater) begin(data.rater);
  else $("start").showModal();
})();
