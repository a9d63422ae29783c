// The page: its state stands in the address, so that each search has a link and the back button works.
import { condition, showFilters } from "./filters.js";
import { uploadOf, readUpload } from "./upload.js";
import { card, reason, showItem, showMessage, skeletons, tile } from "./view.js";
import { language, number, other, translate, words } from "./words.js";

const PAGE = 24; // results that are asked for at once
const MOST = 200;
const EXAMPLES = 6;
const $ = (id) => document.getElementById(id);
const PLAIN = { q: "", minus: "", by: "vector", like: "", item: "", n: PAGE };

// Values by names of fields, any of which may be a name that objects have by themselves: constructor.
const byName = (values = {}) => Object.assign(Object.create(null), values);

let state; // what is searched for: PLAIN's, `filters` and `upload`
let fields = [];
let shown = []; // the results on the page
let searched = ""; // what they are of
let asking = new AbortController();

// --- the state and the address ---

function readAddress() {
  const given = new URLSearchParams(location.search);
  const next = { ...PLAIN, filters: byName(), upload: history.state?.upload ? uploadOf(history.state.upload) : null };
  for (const [key, value] of given) {
    if (key.startsWith("f.")) (next.filters[key.slice(2)] ??= []).push(value);
    else if (Object.hasOwn(PLAIN, key)) next[key] = value;
  }
  if (next.by === "text" && (next.like || next.minus || next.upload)) next.by = "hybrid"; // titles know none of these
  next.n = Math.min(MOST, Math.max(PAGE, Number(next.n) || 0));
  return next;
}

function address(changes = {}) {
  const next = { ...state, ...changes };
  const given = new URLSearchParams();
  for (const key in PLAIN) if (next[key] !== PLAIN[key]) given.set(key, next[key]);
  for (const [name, values] of Object.entries(next.filters)) for (const value of values) given.append(`f.${name}`, value);
  const lang = changes.lang ?? new URLSearchParams(location.search).get("lang");
  if (lang) given.set("lang", lang);
  return `?${given}`;
}

function go(changes, { replace = false } = {}) {
  const next = address(changes);
  const kept = { upload: (changes.upload === undefined ? state.upload : changes.upload)?.url ?? null };
  const upload = changes.upload ?? null;
  if (replace) history.replaceState(kept, "", next);
  else history.pushState(kept, "", next);
  apply(readAddress());
  if (upload && !upload.url) {
    state.upload = upload; // no image that this browser can show: the server says why
    search();
  }
}

const ask = (changes) => go({ item: "", n: PAGE, ...changes });

function apply(next) {
  state = next;
  $("q").value = state.q;
  $("minus").value = state.minus;
  $("by").value = state.by;
  const isImage = state.upload?.url || state.like;
  $("chip").hidden = !isImage;
  if (isImage) {
    $("chip-image").src = state.upload?.url ?? `images/${encodeURIComponent(state.like)}?size=160`;
    $("chip-image").alt = state.upload ? words.yourImage : words.similarTo(state.like);
  }
  $("language").textContent = other.name;
  $("language").lang = other.code;
  $("language").href = address({ lang: other.code });
  $("home").href = new URLSearchParams(location.search).has("lang") ? `?lang=${language}` : "?";
  const count = Object.values(state.filters).filter((values) => values.length).length;
  $("filter-count").textContent = count;
  $("filter-count").hidden = !count;
  showFilters($("filters"), fields, state.filters, choose);
  search();
  openItem();
}

function choose(name, values) {
  const filters = byName(state.filters);
  if (name === null) for (const each in filters) delete filters[each];
  else if (values.length) filters[name] = values;
  else delete filters[name];
  ask({ filters });
}

// --- searching ---

const isSearch = () => Boolean(state.q || state.like || state.upload);

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : { status: 0 };
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw { status: response.status, error: body.error, seconds: response.headers.get("Retry-After") };
  return body;
}

function fetchResults(offset, k) {
  const given = { q: state.q, minus: state.minus, like: state.like, where: condition(fields, state.filters) };
  const query = new URLSearchParams(Object.entries(given).filter(([, value]) => value));
  query.set("by", state.q ? state.by : "vector");
  query.set("offset", offset);
  query.set("k", k);
  const { signal } = asking;
  if (!state.upload) return request(`search?${query}`, { signal });
  const form = new FormData();
  form.set("image", state.upload.blob, "image");
  return request(`search?${query}`, { signal, method: "POST", body: form });
}

async function search() {
  const { item, ...what } = state;
  const key = JSON.stringify([what, what.upload?.url]);
  if (key === searched && state.upload?.url !== null) return;
  searched = key;
  asking.abort();
  asking = new AbortController();
  const mine = asking;
  showMessage("");
  $("more").hidden = true;
  document.body.classList.toggle("empty", !isSearch());
  $("start").hidden = isSearch();
  $("bar").hidden = !isSearch();
  if (!isSearch()) {
    shown = [];
    $("results").replaceChildren();
    $("results").ariaBusy = false;
    if (!$("examples").childElementCount) $("examples").replaceChildren(...examples());
    return;
  }
  $("results").ariaBusy = true;
  const waiting = setTimeout(() => {
    $("status").textContent = words.searching;
    $("results").replaceChildren(...skeletons(12));
  }, 150);
  try {
    const answer = await fetchResults(0, state.n);
    showResults(answer, false);
  } catch (error) {
    if (!mine.signal.aborted) fail(error);
  } finally {
    clearTimeout(waiting);
    if (mine === asking) $("results").ariaBusy = false;
  }
}

function showResults({ results, more, milliseconds }, isMore) {
  shown = isMore ? [...shown, ...results] : results;
  const cards = results.map((item) => card(item, shown[0].score, address({ item: item.id }), likeThis));
  if (isMore) $("results").append(...cards);
  else $("results").replaceChildren(...cards);
  if (isMore && cards.length) cards[0].querySelector("a").focus();
  const parts = [words.found(number(shown.length), more), words.took(number(Math.round(milliseconds)))];
  if (state.upload) parts.splice(1, 0, words.byImage);
  $("status").textContent = parts.join(" · ");
  $("more").hidden = !more || shown.length >= MOST;
  if (!shown.length) {
    $("status").textContent = "";
    const ways = [];
    if (Object.keys(state.filters).length) ways.push([words.clearFilters, () => choose(null)]);
    if (state.by !== "vector") ways.push([words.wholeMeaning, () => ask({ by: "vector" })]);
    if (state.minus) ways.push([words.withoutMinus, () => ask({ minus: "" })]);
    showMessage(words.nothing, words.nothingHint, [...ways, [words.startOver, startOver]]);
  }
}

function fail({ status, error, seconds }) {
  shown = [];
  searched = "";
  $("status").textContent = "";
  $("results").replaceChildren();
  const ways = state.upload && !state.upload.url ? [] : [[words.again, search]];
  showMessage(words.failed, reason(status ?? 500, error, seconds), [...ways, [words.startOver, startOver]]);
}

const startOver = () => {
  ask({ ...PLAIN, filters: {}, upload: null });
  $("q").focus();
};
const likeThis = (item) => {
  ask({ q: "", minus: "", by: "vector", like: item.id, upload: null });
  scrollTo({ top: 0 });
};

$("more").onclick = async () => {
  const k = Math.min(PAGE, MOST - shown.length);
  $("more").disabled = true;
  try {
    showResults(await fetchResults(shown.length, k), true);
    state.n = Math.min(MOST, Math.max(PAGE, shown.length));
    const { item, ...what } = state;
    searched = JSON.stringify([what, what.upload?.url]);
    history.replaceState(history.state, "", address());
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
  } finally {
    $("more").disabled = false;
  }
};

// Some queries to begin with: the most frequent values of the first text of the metadata, each with what it finds.
function examples() {
  const first = fields.find(({ kind, values }) => kind === "text" && values.length > 1 && values[0].count > 1);
  return (first?.values ?? []).slice(0, EXAMPLES).map(({ value }) => {
    const finding = request(`search?${new URLSearchParams({ q: value, k: 1 })}`);
    return tile(value, () => ask({ q: value }), finding);
  });
}

// --- one product ---

async function openItem() {
  if (!state.item) return $("item").open && $("item").close();
  try {
    const known = shown.find(({ id }) => id === state.item);
    showItem(known ?? (await request(`items/${encodeURIComponent(state.item)}`)));
    if (!$("item").open) $("item").showModal();
  } catch {
    go({ item: "" }, { replace: true });
  }
}

const closeItem = () => state.item && (history.state?.opened ? history.back() : go({ item: "" }, { replace: true }));
$("item-close").onclick = closeItem;
$("item").oncancel = (event) => {
  event.preventDefault();
  closeItem();
};
$("item").onclick = (event) => event.target === $("item") && closeItem();
$("item-like").onclick = () => likeThis({ id: state.item });
$("results").onclick = (event) => {
  const link = event.target.closest("a.card");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  history.pushState({ ...history.state, opened: true }, "", address({ item: link.dataset.id }));
  apply(readAddress());
};

// --- the box ---

$("form").onsubmit = (event) => {
  event.preventDefault();
  $("q").blur();
  ask({ q: $("q").value.trim() });
};
$("minus").onchange = () => ask({ minus: $("minus").value.trim() });
$("by").onchange = () => ask({ by: $("by").value });
$("chip-remove").onclick = () => {
  ask({ upload: null, like: "" });
  $("q").focus();
};
$("choose").onclick = () => $("file").click();
$("file").onchange = () => {
  if ($("file").files.length) useUpload($("file").files[0]);
  $("file").value = "";
};
const useUpload = async (file) => ask({ upload: await readUpload(file), like: "" });

document.onpaste = (event) => {
  const file = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
  if (file) {
    event.preventDefault();
    useUpload(file);
  }
};
document.ondragover = (event) => {
  event.preventDefault();
  $("drop").hidden = ![...event.dataTransfer.types].includes("Files");
};
document.ondragleave = (event) => {
  if (!event.relatedTarget) $("drop").hidden = true;
};
document.ondrop = (event) => {
  event.preventDefault();
  $("drop").hidden = true;
  if (event.dataTransfer.files.length) useUpload(event.dataTransfer.files[0]);
};
$("toggle").onclick = () => {
  const open = $("aside").classList.toggle("open");
  $("toggle").setAttribute("aria-expanded", open);
};

// --- the keyboard ---

document.onkeydown = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("item").open) return;
  const isTyping = event.target.matches("input, select, textarea");
  if (event.key === "/" && !isTyping) {
    event.preventDefault();
    $("q").focus();
    $("q").select();
  } else if (event.key === "Escape" && event.target === $("q")) {
    $("q").blur();
  } else if (event.key.startsWith("Arrow") && (!isTyping || (event.target === $("q") && event.key === "ArrowDown"))) {
    moveFocus(event);
  }
};

function moveFocus(event) {
  const links = [...document.querySelectorAll("a.card")];
  if (!links.length) return;
  const at = links.indexOf(event.target);
  const columns = getComputedStyle($("results")).gridTemplateColumns.split(" ").length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
  if (at < 0 && event.key !== "ArrowDown") return;
  event.preventDefault();
  const to = at < 0 ? 0 : at + step;
  if (to < 0) $("q").focus();
  else (links[to] ?? links.at(-1)).focus();
}

// --- the beginning ---

addEventListener("popstate", () => apply(readAddress()));
translate(document);
state = readAddress();
try {
  const answer = await request("fields");
  fields = answer.fields;
  $("count").textContent = words.products(number(answer.products));
} catch (error) {
  document.body.classList.add("empty");
  fail(error);
}
apply(readAddress());
if (!isSearch()) $("q").focus();
