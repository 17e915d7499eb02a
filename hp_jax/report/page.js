/* What the report's page can do with a script; without it the page shows the same. */
"use strict";
(() => {
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const button = (text, act, title = "") => {
    const element = make("button", { type: "button", title }, text);
    element.addEventListener("click", () => act(element));
    return element;
  };
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // --- tables: sorted by a click on a heading, the third gives the first order back; copied

  const valueOf = (cell) => cell.dataset.v ?? cell.textContent;
  const numberOf = (cell) => {
    const number = /^(?:head \d+: )?([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?![\w.])/i;
    return Number(number.exec(valueOf(cell))?.[1] ?? NaN);
  };
  const missing = (cell) => ["", "–", "nan"].includes(valueOf(cell));

  const sort = (table, rows, heading) => {
    const next = { none: "ascending", ascending: "descending", descending: "none" };
    const order = next[heading.ariaSort ?? "none"];
    for (const other of all("th", table)) other.ariaSort = other === heading ? order : "none";
    const cell = (row) => row.cells[heading.cellIndex];
    const numbers = rows.every((row) => missing(cell(row)) || !isNaN(numberOf(cell(row))));
    const compare = (a, b) =>
      numbers
        ? numberOf(a) - numberOf(b)
        : valueOf(a).localeCompare(valueOf(b), "en", { numeric: true });
    const sign = order === "descending" ? -1 : 1;
    const sorted = [...rows].sort(
      (a, b) =>
        missing(cell(a)) - missing(cell(b)) ||
        (missing(cell(a)) ? 0 : sign * compare(cell(a), cell(b)))
    );
    table.tBodies[0].append(...(order === "none" ? rows : sorted));
  };

  const tabbed = (table) =>
    [
      all("th", table).map((heading) => heading.dataset.c),
      ...[...table.tBodies[0].rows].map((row) => [...row.cells].map(valueOf)),
    ]
      .map((line) => line.join("\t") + "\n")
      .join("");

  const COPY = "Copy table";
  const copy = async (text, pressed) => {
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = make("textarea", { value: text, className: "away" });
      pressed.after(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
      pressed.focus();
    }
    pressed.textContent = done ? "Copied" : "This browser does not let a page copy";
    setTimeout(() => (pressed.textContent = COPY), 2000);
  };

  for (const table of all("table")) {
    const rows = [...table.tBodies[0].rows];
    for (const heading of all("th", table)) {
      const press = button("", () => sort(table, rows, heading));
      press.append(...heading.childNodes);
      heading.append(press);
      heading.ariaSort = "none";
    }
    for (const cell of all("td[data-v]:not([title])", table)) cell.title = valueOf(cell);
    const press = button(COPY, () => copy(tabbed(table), press));
    press.setAttribute("aria-live", "polite");
    table.parentElement.nextElementSibling.prepend(press);
  }

  // --- pictures: places say what they show to the pointer and to the keyboard

  const tip = make("div", { id: "tip", hidden: true });
  let said = null;
  const say = (spot) => {
    said = spot;
    (spot.closest("dialog") ?? document.body).append(tip);
    tip.textContent = spot.ariaLabel;
    tip.hidden = false;
    const at = spot.getBoundingClientRect();
    const left = Math.min(at.right + 6, document.documentElement.clientWidth - tip.offsetWidth - 6);
    const above = at.top - tip.offsetHeight - 6;
    tip.style.left = `${Math.max(left, 6)}px`;
    tip.style.top = `${above > 0 ? above : at.bottom + 6}px`;
  };
  const hush = () => {
    said = null;
    tip.hidden = true;
  };

  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const beside = (spots, from, [dx, dy]) => {
    const middle = (spot) => [+spot.x.baseVal.value + spot.width.baseVal.value / 2,
                              +spot.y.baseVal.value + spot.height.baseVal.value / 2];
    const [x, y] = middle(from);
    let best = from, least = Infinity;
    for (const spot of spots) {
      const [right, down] = [middle(spot)[0] - x, middle(spot)[1] - y];
      const ahead = right * dx + down * dy, away = Math.abs(right * dy) + Math.abs(down * dx);
      if (ahead > 0.1 && ahead + 3 * away < least) [best, least] = [spot, ahead + 3 * away];
    }
    return best;
  };

  const point = (svg) => {
    const group = svg.querySelector(".spots"), spots = all("rect", group);
    if (!spots.length) return;
    svg.setAttribute("role", "group");
    for (const spot of spots) {
      spot.ariaLabel = spot.textContent;  // the browser's own tooltip would come too, and later
      spot.replaceChildren();
      spot.setAttribute("role", "img");
      spot.tabIndex = spot === spots[0] ? 0 : -1;
    }
    group.addEventListener("pointerover", (event) => say(event.target));
    group.addEventListener("pointerout", hush);
    group.addEventListener("focusin", (event) => say(event.target));
    group.addEventListener("focusout", hush);
    group.addEventListener("keydown", (event) => {
      if (!(event.key in steps)) return;
      event.preventDefault();
      const spot = beside(spots, event.target, steps[event.key]);
      event.target.tabIndex = -1;
      spot.tabIndex = 0;
      spot.focus();
    });
  };
  document.addEventListener("keydown", (event) => event.key === "Escape" && hush());
  const follow = () => said && (said === document.activeElement ? say(said) : hush());
  document.addEventListener("scroll", follow, { capture: true, passive: true });

  // --- pictures: in large, and as files

  const large = make("dialog", { ariaLabel: "The picture in large" });
  const enlarge = (svg) => {
    const place = svg.parentElement;
    const close = button("Close", () => large.close());
    large.replaceChildren(close, svg);
    large.addEventListener("close", () => (hush(), place.append(svg)), { once: true });
    large.showModal();
  };
  large.addEventListener("click", (event) => event.target === large && large.close());
  document.body.append(large);

  const save = (name, blob) => {
    const link = make("a", { download: name, href: URL.createObjectURL(blob) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  };
  const source = (svg) => {
    const alone = svg.cloneNode(true), box = svg.viewBox.baseVal;
    alone.querySelector(".spots").remove();
    alone.setAttribute("width", `${box.width}pt`);
    alone.setAttribute("height", `${box.height}pt`);
    return new XMLSerializer().serializeToString(alone);
  };
  const savePng = async (svg, name) => {
    const image = make("img", { src: `data:image/svg+xml,${encodeURIComponent(source(svg))}` });
    await image.decode();
    const canvas = make("canvas", { width: 2 * image.width, height: 2 * image.height });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => save(name, blob));
  };

  for (const figure of all("figure.picture")) {
    const svg = figure.querySelector("svg"), tools = figure.querySelector(".tools");
    const { name } = tools.dataset;
    const saveSvg = () =>
      save(`${name}.svg`, new Blob([source(svg)], { type: "image/svg+xml" }));
    tools.append(
      button("Open large", () => enlarge(svg), `Open ${name} large`),
      button("PNG", () => savePng(svg, `${name}.png`), `Download ${name}.png`),
      button("SVG", saveSvg, `Download ${name}.svg`)
    );
    point(svg);
  }
})();
