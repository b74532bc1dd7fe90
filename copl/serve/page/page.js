"use strict";
// Everything a user or a model wrote goes into the page as text, never as markup.

const byId = (id) => document.getElementById(id);
const state = { user: "", token: "", writes: true, tab: "try", question: null, shown: null };

function headers() {
  const sent = { "Content-Type": "application/json" };
  if (state.token) sent.Authorization = `Bearer ${state.token}`;
  return sent;
}

async function ask(method, path, body, key) {
  const sent = headers();
  if (key) sent["Idempotency-Key"] = key;
  let answer;
  try {
    answer = await fetch(path, { method, headers: sent, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Error("the service cannot be reached");
  }
  const value = await answer.json().catch(() => ({}));
  if (answer.status === 401) byId("token-field").hidden = false;
  if (!answer.ok) throw new Error(value.error ? value.error.message : `status ${answer.status}`);
  return value;
}

const ofUser = (rest) => `v1/users/${encodeURIComponent(state.user)}${rest}`;
const newKey = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(16)).join("-");

function say(text) { byId("status").textContent = text; }

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function textOf(prompt) {
  return typeof prompt === "string" ? prompt : prompt.map((message) => `${message.role}: ${message.content}`).join("\n");
}

// Runs something that a person asked for: one at a time, faults in words.
let busy = false;
let waiting = null; // a part of the page that was opened meanwhile
async function doing(words, action) {
  if (busy) return;
  busy = true;
  byId("fault").textContent = "";
  say(words);
  document.body.setAttribute("aria-busy", "true");
  try {
    if (!state.user) throw new Error("say who you are first: any name of yours");
    const told = await action();
    say(told || "");
  } catch (error) {
    say("");
    byId("fault").textContent = error.message;
  } finally {
    busy = false;
    document.body.removeAttribute("aria-busy");
    const opened = waiting;
    waiting = null;
    if (opened === state.tab) load(opened);
  }
}

// ---- Try

function paragraphs(text) {
  return text.split(/\n\s*\n/).map((part) => part.trim()).filter(Boolean);
}

async function candidatesOf(prompt) {
  const own = paragraphs(byId("answers").value);
  if (own.length) {
    if (own.length < 2) throw new Error("give at least two answers, with an empty line between them");
    return [...new Set(own)];
  }
  if (!state.writes) throw new Error("no language model writes here: give the answers to choose from");
  const made = await ask("POST", "v1/chat/completions", {
    model: "", messages: [{ role: "user", content: prompt }], user: state.user,
  });
  return [...new Set(made.copl.candidates)];
}

async function rank(prompt, texts) {
  const scored = await ask("POST", ofUser("/score"), { prompt, responses: texts });
  const order = (values) => texts.map((_, n) => n).sort((a, b) => values[b] - values[a]);
  return { mine: order(scored.rewards).map((n) => texts[n]), all: order(scored.average).map((n) => texts[n]) };
}

function show(prompt, texts, ranked) {
  const mine = ranked.mine[0];
  const same = ranked.all[0] === mine;
  const other = same ? ranked.mine[1] : ranked.all[0];
  state.shown = { prompt, texts, left: mine, right: other };
  byId("left").textContent = mine;
  byId("right").textContent = other === undefined ? "There is no other answer." : other;
  byId("right-head").textContent = same ? "Second for you (everybody gets the same first one)" : "Chosen for everybody";
  byId("left-better").disabled = byId("right-better").disabled = other === undefined;
  byId("ranking").replaceChildren(...ranked.mine.map((text) => rankedItem(text, texts.length)));
  byId("answer").hidden = false;
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  doing("Asking …", async () => {
    const prompt = byId("prompt").value.trim();
    const texts = await candidatesOf(prompt);
    show(prompt, texts, await rank(prompt, texts));
    return `${texts.length} answers, the best for you first.`;
  });
});

function rankedItem(text, count) {
  const item = element("li");
  const button = element("button", "This is the best", "quiet");
  button.setAttribute("aria-label", `This is the best: ${text}`.slice(0, 200));
  button.disabled = count < 2;
  button.addEventListener("click", () => better(text, ...state.shown.texts.filter((other) => other !== text)));
  item.append(element("p", text, "text"), button);
  return item;
}

function better(chosen, ...others) {
  doing("Noting …", async () => {
    const { prompt, texts } = state.shown;
    const comparisons = others.map((rejected) => ({ prompt, chosen, rejected }));
    await ask("POST", ofUser("/comparisons"), { comparisons }, newKey());
    show(prompt, texts, await rank(prompt, texts));
    return "Noted. This is your order now.";
  });
}
byId("left-better").addEventListener("click", () => better(state.shown.left, state.shown.right));
byId("right-better").addEventListener("click", () => better(state.shown.right, state.shown.left));

// ---- Teach

function sure(confidence) {
  const percent = `${Math.round(100 * confidence)} %`;
  byId("sure").value = confidence;
  byId("sure").textContent = percent;
  byId("sure-text").textContent = percent;
}

async function nextQuestion() {
  state.question = null;
  const question = await ask("GET", ofUser("/question"));
  state.question = question;
  sure(question.confidence);
  byId("question-prompt").textContent = textOf(question.prompt);
  byId("first").textContent = question.first;
  byId("second").textContent = question.second;
  byId("question").hidden = false;
}

let numAnswers = 0;
function reply(which) {
  const question = state.question;
  if (!question || busy) return;
  doing("Noting …", async () => {
    const { prompt, first, second } = question;
    const [chosen, rejected] = which === 2 ? [second, first] : [first, second];
    const comparisons = [{ prompt, chosen, rejected, tie: which === 0 }];
    await ask("POST", ofUser("/comparisons"), { comparisons }, newKey());
    numAnswers += 1;
    byId("count").textContent = numAnswers === 1 ? "1 answer" : `${numAnswers} answers`;
    await nextQuestion();
    return "Noted. The next pair:";
  });
}
byId("first-better").addEventListener("click", () => reply(1));
byId("second-better").addEventListener("click", () => reply(2));
byId("neither").addEventListener("click", () => reply(0));
document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|TEXTAREA)$/.test(event.target.tagName);
  if (state.tab === "teach" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey && "012".includes(event.key)) {
    event.preventDefault();
    reply(Number(event.key));
  }
});

// ---- You

function circle(x, y, radius, className, title) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  for (const [name, value] of Object.entries({ cx: x, cy: -y, r: radius, class: className })) made.setAttribute(name, value);
  if (title) {
    const told = document.createElementNS("http://www.w3.org/2000/svg", "title");
    told.textContent = title;
    made.append(told);
  }
  return made;
}

function drawMap(map) {
  const heading = byId("map-title");
  const points = map.points.map(([x, y], n) => circle(x, y, 0.02, "other", map.groups[n] || ""));
  if (map.place) points.push(circle(map.place[0], map.place[1], 0.05, "me", "you"));
  byId("map").replaceChildren(heading, ...points);
  byId("map").removeAttribute("hidden");
  byId("map-hint").textContent = map.place
    ? "Each small point is a user of the training data, the large one is you; those near you like what you like."
    : "There is no map for this run.";
}

// What an event says: a line of words, then texts with what each was to the person ("" is neither liked nor disliked).
function toldOf(event, completion) {
  const said = event.said;
  const shown = completion ? completion.candidates[completion.shown] : undefined;
  switch (event.kind) {
    case "comparison": return said.tie
      ? ["Neither was better:", [said.chosen, ""], [said.rejected, ""]]
      : ["You preferred:", [said.chosen, "liked"], [`to: ${said.rejected}`, "disliked"]];
    case "rating": return [`You rated ${said.rating}:`, [said.response, ""]];
    case "choice": return ["You chose:", [completion ? completion.candidates[said.chosen] : `answer ${said.chosen + 1}`, "liked"]];
    case "thumb": return [said.thumb > 0 ? "Thumb up for:" : said.thumb < 0 ? "Thumb down for:" : "No thumb for:", [shown, said.thumb > 0 ? "liked" : ""]];
    case "edit": return ["You wrote:", [said.edit, "liked"], [`in place of: ${shown}`, "disliked"]];
    default: return [event.kind];
  }
}

function eventCard(event, completion) {
  const card = element("li", undefined, event.in_force ? "" : "off");
  const [head, ...texts] = toldOf(event, completion);
  const prompt = event.said.prompt || (completion && completion.prompt);
  card.append(element("p", `${new Date(1000 * event.created).toLocaleString()}${event.in_force ? "" : " · no longer counts"}`, "when"));
  if (prompt) card.append(element("p", textOf(prompt)));
  card.append(element("p", head));
  texts.forEach(([text, className]) => card.append(element("p", text, className)));
  if (event.in_force) {
    const button = element("button", "Withdraw", "quiet");
    button.setAttribute("aria-label", `Withdraw: ${head} ${texts.length ? texts[0][0] : ""}`.slice(0, 200));
    button.addEventListener("click", () => doing("Withdrawing …", async () => {
      await ask("DELETE", ofUser(`/events/${event.id}`), undefined, newKey());
      await loadYou();
      return "Withdrawn.";
    }));
    card.append(button);
  }
  return card;
}

async function loadYou() {
  const [seen, examples, map, events] = await Promise.all([
    ask("GET", ofUser("")), ask("GET", ofUser("/examples")), ask("GET", ofUser("/map")), ask("GET", ofUser("/events")),
  ]);
  byId("known").textContent = seen.known
    ? `${seen.num_comparisons === 1 ? "1 judgement" : `${seen.num_comparisons} judgements`} of yours count${seen.num_comparisons === 1 ? "s" : ""} beside training. I am ${Math.round(100 * seen.confidence)} % sure of you.`
    : "I know nothing of you yet: you get what everybody gets.";
  const cards = examples.examples.map((example) => {
    const card = element("li");
    card.append(element("p", textOf(example.prompt), "when"), element("p", `More: ${example.liked}`, "liked"), element("p", `Less: ${example.disliked}`, "disliked"));
    return card;
  });
  byId("examples").replaceChildren(...(cards.length ? cards : [element("li", "Nothing yet that would set you apart.")]));
  drawMap(map);
  const completions = Object.fromEntries(
    events.events.filter((event) => event.kind === "completion").map((event) => [event.subject, event.said]));
  const said = events.events.filter((event) => event.kind !== "completion" && event.kind !== "withdrawal");
  byId("events").replaceChildren(...(said.length ? said.map((event) => eventCard(event, completions[event.subject])) : [element("li", "You have said nothing yet.")]));
}

function askToForget(asked) {
  byId("forget").hidden = asked;
  byId("forget-sure").hidden = byId("forget-no").hidden = !asked;
  (asked ? byId("forget-no") : byId("forget")).focus();
}
byId("forget").addEventListener("click", () => askToForget(true));
byId("forget-no").addEventListener("click", () => askToForget(false));
byId("forget-sure").addEventListener("click", () => doing("Forgetting …", async () => {
  await ask("DELETE", ofUser(""));
  askToForget(false);
  await loadYou();
  return "You are forgotten.";
}));

// ---- Operators

function rows(id, values) {
  const made = values.map((cells) => {
    const row = element("tr");
    cells.forEach((cell, n) => row.append(element("td", String(cell), typeof cell === "number" || (n && /^[\d.–-]+$/.test(cell)) ? "number" : "")));
    return row;
  });
  const none = element("td", "Nothing yet.", "hint");
  none.colSpan = byId(id).tHead.rows[0].cells.length;
  const line = element("tr");
  line.append(none);
  byId(id).tBodies[0].replaceChildren(...(made.length ? made : [line]));
}

async function loadOperators() {
  const seen = await ask("GET", "v1/admin/overview");
  const differs = Math.round(100 * seen.share_differs);
  byId("overview").textContent = `Users: ${seen.num_users}. Completions: ${seen.num_answers} since the start, ${differs} % of them other than the unpersonalised choice. `
    + (seen.current ? `Run ${seen.current.run.slice(0, 12)}` : "No run is loaded yet")
    + (seen.previous ? `, before it ${seen.previous.run.slice(0, 12)}.` : ".");
  rows("days", seen.days.map((day) => [day.day, day.kind, day.count]));
  rows("users", seen.users.map((user) => [user.user, user.num_events]));
  rows("groups", Object.entries(seen.groups));
  rows("latency", seen.latency.map((stage) => [stage.stage, stage.count, (1000 * stage.seconds).toFixed(1)]));
  const now = seen.current ? seen.current.accuracy : {};
  const before = seen.previous ? seen.previous.accuracy : {};
  rows("runs", Object.keys({ ...now, ...before }).map((split) => [split, now[split] ?? "–", before[split] ?? "–"]));
}
byId("refresh").addEventListener("click", () => doing("Looking …", async () => {
  await ask("POST", "v1/admin/refresh");
  return "The service looks for a newly trained run; this page shows it when it is there.";
}));

// ---- Tabs, and who the person is

const loaders = { try: async () => {}, teach: nextQuestion, you: loadYou, operators: loadOperators };
const tabs = Object.keys(loaders);

function open(tab, focus) {
  state.tab = tab;
  for (const name of tabs) {
    const chosen = name === tab;
    byId(name).hidden = !chosen;
    byId(`tab-${name}`).setAttribute("aria-selected", String(chosen));
    byId(`tab-${name}`).tabIndex = chosen ? 0 : -1;
  }
  if (focus) byId(`tab-${tab}`).focus();
  history.replaceState(null, "", `#${tab}`);
  byId("who-first").hidden = Boolean(state.user) || !["teach", "you"].includes(tab);
  if (state.user || tab === "operators") load(tab);
}

function load(tab) {
  if (busy) {
    waiting = tab;
    return Promise.resolve();
  }
  const user = state.user;
  if (tab === "operators" && !user) state.user = " ";
  return doing(tab === "try" ? "" : "Loading …", async () => { await loaders[tab](); }).finally(() => {
    if (state.user === " ") state.user = user;
  });
}

for (const name of tabs) {
  const tab = byId(`tab-${name}`);
  tab.addEventListener("click", () => open(name));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const place = tabs.indexOf(name);
    if (step) open(tabs[(place + step + tabs.length) % tabs.length], true);
    else if (event.key === "Home") open(tabs[0], true);
    else if (event.key === "End") open(tabs[tabs.length - 1], true);
    else return;
    event.preventDefault();
  });
}

async function enter() {
  const me = await ask("GET", "v1/me");
  state.writes = me.writes;
  byId("token-field").hidden = me.open;
  if (me.scope === "user") {
    state.user = me.user;
    byId("user").value = me.user;
    byId("user").readOnly = true;
  }
  byId("tab-operators").hidden = me.scope !== "admin";
}

byId("who").addEventListener("submit", async (event) => {
  event.preventDefault();
  state.user = byId("user").value.trim();
  state.token = byId("token").value.trim();
  sessionStorage.setItem("copl-user", state.user);
  sessionStorage.setItem("copl-token", state.token);
  numAnswers = 0;
  byId("count").textContent = "";
  byId("answer").hidden = true;
  byId("fault").textContent = "";
  try {
    await enter();
    if (!state.user) throw new Error("say who you are: any name of yours");
    byId("who-first").hidden = true;
    await load(state.tab);
    if (!byId("fault").textContent) say(`Hello, ${state.user}.`);
  } catch (error) {
    byId("fault").textContent = error.message;
  }
});

(async () => {
  state.user = sessionStorage.getItem("copl-user") || "";
  state.token = sessionStorage.getItem("copl-token") || "";
  byId("user").value = state.user;
  byId("token").value = state.token;
  try {
    await enter();
  } catch (error) {
    byId("fault").textContent = error.message;
  }
  const wanted = location.hash.slice(1);
  open(tabs.includes(wanted) ? wanted : "try");
})();
