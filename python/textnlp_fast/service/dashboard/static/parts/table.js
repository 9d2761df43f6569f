// Tables: sorted by their heads, filtered, and cut into pages, so that ten thousand rows are no more than a hundred.

import { el, fill, freshId } from "../core/dom.js";
import { count, number } from "../core/format.js";

/**
 * `columns`: {key, label, value(row) to sort by, cell(row) to show, numeric, sort: false, hide: "narrow"}.
 * Options: `caption`, `sort` {key, descending}, `pageSize`, `filter` (row -> text to look in), `onFocus(row)`,
 * `rowClass(row)`, `none` (what stands in an empty table), `complete` (false: there are more than were loaded).
 */
export function table(columns, rows, options = {}) {
  const { caption, pageSize = 100, filter, none = "Nothing here.", complete = true, noun = "row" } = options;
  const state = { sort: options.sort ?? null, page: 0, words: "" };
  const id = freshId("table");
  const head = el("thead");
  const body = el("tbody");
  const pager = el("nav", { class: "pager", "aria-label": `Pages of ${caption}` });
  const scroller = el(
    "div",
    { class: "scroller", role: "region", "aria-label": caption, tabindex: "0" },
    el("table", { id }, el("caption", { class: "only-heard" }, caption), head, body),
  );

  function chosen() {
    const words = state.words.toLowerCase();
    const kept = words ? rows.filter((row) => filter(row).toLowerCase().includes(words)) : [...rows];
    const column = state.sort && columns.find((each) => each.key === state.sort.key);
    return column ? kept.sort(order(column, state.sort.descending)) : kept;
  }

  function draw() {
    const kept = chosen();
    const pages = Math.max(1, Math.ceil(kept.length / pageSize));
    state.page = Math.min(state.page, pages - 1);
    const first = state.page * pageSize;
    const shown = kept.slice(first, first + pageSize);
    fill(head, heads(columns, state.sort, sortBy));
    fill(body, shown.map((row) => line(columns, row, options)));
    if (!shown.length) {
      fill(body, el("tr", {}, el("td", { colspan: columns.length, class: "faint" }, state.words ? "Nothing matches." : none)));
    }
    fill(pager, pages > 1 || state.words ? pagerParts(kept.length, first, shown.length, pages) : []);
    options.onDraw?.(shown, [...body.rows]);
  }

  function sortBy(key) {
    const column = columns.find((each) => each.key === key);
    const same = state.sort?.key === key;
    state.sort = { key, descending: same ? !state.sort.descending : Boolean(column.numeric) };
    state.page = 0;
    draw();
    head.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
  }

  function pagerParts(all, first, shown, pages) {
    const go = (page, which) => () => {
      state.page = page;
      draw();
      const again = pager.querySelector(`[data-which="${which}"]`);
      (again?.disabled ? pager.querySelector("button:not(:disabled)") : again)?.focus();
    };
    const button = (which, words, page) =>
      el(
        "button",
        { type: "button", class: "quiet", disabled: page < 0 || page >= pages || page === state.page, data: { which }, onclick: go(page, which) },
        words,
      );
    return [
      el("span", { class: "faint", role: "status" }, shown ? `${number(first + 1)}–${number(first + shown)} of ${count(all, noun)}` : count(0, noun)),
      pages > 1 && [button("previous", "Previous", state.page - 1), button("next", "Next", state.page + 1)],
    ];
  }

  const parts = [];
  if (filter && rows.length > 8) {
    const field = el("input", {
      type: "search",
      "aria-label": `Filter ${caption}`,
      placeholder: options.filterWords ?? "Filter",
      "aria-controls": id,
      oninput: () => {
        state.words = field.value.trim();
        state.page = 0;
        draw();
      },
    });
    parts.push(el("div", { class: "tools" }, field));
  }
  draw();
  const rest = !complete && el("p", { class: "faint" }, `The first ${count(rows.length, noun)}; the command line has all of them.`);
  return el("div", { class: "table" }, parts, scroller, pager, rest);
}

function heads(columns, sort, sortBy) {
  return el(
    "tr",
    {},
    columns.map((column) => {
      const active = sort?.key === column.key;
      const attributes = {
        scope: "col",
        class: [column.numeric && "num", column.hide && `hide-${column.hide}`].filter(Boolean).join(" ") || null,
        "aria-sort": active ? (sort.descending ? "descending" : "ascending") : null,
      };
      if (column.sort === false) return el("th", attributes, column.label);
      return el(
        "th",
        attributes,
        el("button", { type: "button", class: "sorter", data: { key: column.key }, onclick: () => sortBy(column.key) }, column.label),
      );
    }),
  );
}

function line(columns, row, { onFocus, rowClass }) {
  const listeners = onFocus ? { onfocusin: () => onFocus(row), onpointerenter: () => onFocus(row) } : {};
  return el(
    "tr",
    { class: rowClass?.(row) || null, ...listeners },
    columns.map((column, place) =>
      el(
        place === 0 && column.head !== false ? "th" : "td",
        {
          scope: place === 0 && column.head !== false ? "row" : null,
          class: [column.numeric && "num", column.class, column.hide && `hide-${column.hide}`].filter(Boolean).join(" ") || null,
        },
        column.cell ? column.cell(row) : column.value(row),
      ),
    ),
  );
}

function order(column, descending) {
  const turn = descending ? -1 : 1;
  return (left, right) => {
    const [a, b] = [column.value(left), column.value(right)];
    // What is not known goes last, either way.
    if (a === null || a === undefined) return b === null || b === undefined ? 0 : 1;
    if (b === null || b === undefined) return -1;
    if (typeof a === "number" && typeof b === "number") return turn * (a - b);
    return turn * String(a).localeCompare(String(b), "en", { numeric: true });
  };
}
