// What the page shows. Everything from the server becomes text, never markup.
import { number, words } from "./words.js";

const NUMBERS = 2; // of the metadata, and
const TEXTS = 3; // that a card shows

// Makes an element with properties and children; children that are false are left out.
export function make(tag, properties = {}, children = []) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter(Boolean));
  return element;
}

export const titleOf = (item) => item.title || words.untitled(item.id);
export const imageOf = (item, size) => item.image.slice(1) + (size ? `?size=${size}` : "");
const shownValue = (value) => (typeof value === "number" ? number(value) : value === true ? words.yes : value === false ? words.no : value);

export function card(item, best, address, like) {
  const title = titleOf(item);
  const values = Object.entries(item.metadata);
  const texts = values.filter(([, value]) => typeof value === "string").slice(0, TEXTS);
  const numbers = values.filter(([, value]) => typeof value === "number").slice(0, NUMBERS);
  const image = make("img", { alt: "", loading: "lazy", decoding: "async", width: 320, height: 320 });
  image.onerror = () => image.classList.add("missing");
  image.srcset = `${imageOf(item, 320)} 1x, ${imageOf(item, 640)} 2x`;
  const bar = make("i");
  bar.style.width = `${Math.max(0, Math.min(100, (100 * item.score) / (best || 1)))}%`;
  const score = item.score.toPrecision(3);
  const link = make("a", { href: address, className: "card" }, [
    make("span", { className: "image" }, [image]),
    make("span", { className: "score", title: words.score(score) }, [bar]),
    make("strong", { textContent: title }),
    texts.length && make("span", { className: "texts", textContent: texts.map(([, value]) => value).join(" · ") }),
    make("span", { className: "numbers" }, [
      ...numbers.map(([name, value]) => make("span", {}, [`${name} `, make("b", { textContent: number(value) })])),
      make("span", { className: "value", textContent: score, ariaLabel: words.score(score) }),
    ]),
  ]);
  link.dataset.id = item.id;
  const button = make("button", { type: "button", className: "similar", textContent: words.like, ariaLabel: words.likeThis(title) });
  button.onclick = () => like(item);
  return make("li", {}, [link, button]);
}

// A query to begin with, and once it is known the image of what it finds.
export function tile(word, search, finding) {
  const image = make("span", { className: "image" });
  finding.then(({ results: [item] }) => item && image.append(make("img", { alt: "", src: imageOf(item, 320) })), () => {});
  return make("button", { type: "button", className: "tile", onclick: search }, [image, make("span", { textContent: word })]);
}

export function skeletons(count) {
  return Array.from({ length: count }, () => make("li", { className: "skeleton", ariaHidden: "true" }, [make("span"), make("span"), make("span")]));
}

// Shows a message in place of results, with the ways out of it: pairs of words and what they do.
export function showMessage(title, text = "", ways = []) {
  const place = document.getElementById("message");
  place.hidden = !title;
  document.getElementById("message-title").textContent = title;
  document.getElementById("message-text").textContent = text;
  const buttons = ways.map(([word, act]) => make("button", { type: "button", className: "plain", textContent: word, onclick: act }));
  document.getElementById("ways").replaceChildren(...buttons);
}

export function showItem(item) {
  document.getElementById("item-title").textContent = titleOf(item);
  const image = document.getElementById("item-image");
  image.src = imageOf(item, 640);
  image.alt = titleOf(item);
  document.getElementById("item-link").href = imageOf(item);
  const rows = Object.entries({ ...item.metadata, id: item.id }).map(([name, value]) =>
    make("div", {}, [make("dt", { textContent: name }), make("dd", { textContent: shownValue(value) })]),
  );
  document.getElementById("item-fields").replaceChildren(...rows);
}

// Says in words why a request failed; gives the text of it.
export function reason(status, error, seconds) {
  if (status === 0) return words.offline;
  if (status === 413) return words.tooLarge;
  if (status === 429) return words.tooMany(seconds);
  if (status === 503) return words.busy;
  if (status === 404) return words.gone;
  if (error?.argument === "image") return /pixels/.test(error.message) ? words.tooLarge : words.notAnImage;
  return status >= 500 ? words.broken : (error?.message ?? words.broken);
}
