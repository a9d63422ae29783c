// The filters: what of the metadata can be chosen, and the condition that a choice stands for.
import { number, words } from "./words.js";
import { make } from "./view.js";

const OPEN = 4; // fields whose values are shown from the start
const SHOWN = 10; // values of a field that are shown before the rest is asked for
const identifier = (name) => `"${name.replaceAll('"', '""')}"`;
const text = (value) => `'${value.replaceAll("'", "''")}'`;

// Gives the condition of a choice: a mapping of names to lists of values; of a number the least and the greatest.
export function condition(fields, chosen) {
  const parts = [];
  for (const { name, kind } of fields) {
    const values = chosen[name] ?? [];
    if (kind === "number") {
      const [least, greatest] = values;
      if (least) parts.push(`${identifier(name)} >= ${Number(least)}`);
      if (greatest) parts.push(`${identifier(name)} <= ${Number(greatest)}`);
    } else if (kind === "boolean" && values.length) {
      parts.push(`${identifier(name)} = ${values[0] === "true"}`);
    } else if (values.length) {
      parts.push(`${identifier(name)} in (${values.map(text).join(", ")})`);
    }
  }
  return parts.join(" and ");
}

// Shows the fields with what is chosen of them; `choose` is told each change.
export function showFilters(place, fields, chosen, choose) {
  const open = new Set([...place.querySelectorAll("details[open]")].map((each) => each.dataset.name));
  const isFirst = !place.childElementCount;
  const offered = fields.filter(({ kind, values }) => kind !== "text" || values.length > 1);
  const order = (field) => ["text", "number", "boolean"].indexOf(field.kind);
  const coverage = ({ values }) => -values.reduce((sum, { count }) => sum + count, 0);
  const sorted = offered.toSorted((one, two) => order(one) - order(two) || coverage(one) - coverage(two));
  // Numbers come after the first texts, where they are seen.
  const numbers = sorted.filter(({ kind }) => kind !== "text");
  const texts = sorted.filter(({ kind }) => kind === "text");
  const shown = [...texts.slice(0, OPEN), ...numbers, ...texts.slice(OPEN)];
  const some = Object.keys(chosen).length > 0;
  place.replaceChildren(
    make("div", { className: "head" }, [
      make("h2", { textContent: words.filters }),
      some && make("button", { type: "button", className: "link", textContent: words.clearFilters, onclick: () => choose(null) }),
    ]),
    ...shown.map((field, index) => {
      const values = chosen[field.name] ?? [];
      const pick = (next) => choose(field.name, next);
      const body = { text: choices, number: range, boolean: truth }[field.kind](field, values, pick);
      const details = make("details", { open: isFirst ? index < OPEN + 1 || values.length > 0 : open.has(field.name) }, [
        make("summary", {}, [make("span", { textContent: field.name }), values.some(Boolean) && make("b", { textContent: "•" })]),
        make("fieldset", {}, [make("legend", { className: "hidden", textContent: field.name }), ...body]),
      ]);
      details.dataset.name = field.name;
      return details;
    }),
  );
}

function choices({ values }, chosen, pick) {
  const known = values.map(({ value }) => value);
  const all = [...chosen.filter((value) => !known.includes(value)).map((value) => ({ value })), ...values];
  const boxes = all.map(({ value, count }) =>
    make("label", { className: "choice" }, [
      make("input", {
        type: "checkbox",
        value,
        checked: chosen.includes(value),
        onchange: ({ target }) => pick(target.checked ? [...chosen, value] : chosen.filter((each) => each !== value)),
      }),
      make("span", { textContent: value }),
      count && make("small", { textContent: number(count) }),
    ]),
  );
  const rest = boxes.slice(SHOWN);
  if (!rest.length) return boxes;
  const hidden = make("div", { hidden: !all.slice(SHOWN).some(({ value }) => chosen.includes(value)) }, rest);
  const button = make("button", { type: "button", className: "link", hidden: !hidden.hidden, textContent: words.others(rest.length) });
  button.onclick = () => {
    hidden.hidden = false;
    button.hidden = true;
    hidden.querySelector("input").focus();
  };
  return [...boxes.slice(0, SHOWN), hidden, button];
}

function range({ name }, [least = "", greatest = ""], pick) {
  const inputs = [
    [words.from, least],
    [words.to, greatest],
  ].map(([word, value]) =>
    make("input", { type: "number", step: "any", inputMode: "decimal", placeholder: word, ariaLabel: `${name} ${word}`, value }),
  );
  for (const each of inputs) each.onchange = () => pick(inputs.some((input) => input.value) ? inputs.map((input) => input.value) : []);
  return [make("div", { className: "range" }, [inputs[0], make("span", { textContent: "–" }), inputs[1]])];
}

function truth({ name }, [value = ""], pick) {
  const options = [
    ["", words.any],
    ["true", words.yes],
    ["false", words.no],
  ];
  const select = make(
    "select",
    { ariaLabel: name, onchange: ({ target }) => pick(target.value ? [target.value] : []) },
    options.map(([key, word]) => make("option", { value: key, textContent: word, selected: key === value })),
  );
  return [select];
}
