// Elements out of data. Every text goes in by textContent: nothing here reads markup.

/** The element of an id that index.html has. */
export const $ = (id) => document.getElementById(id);

/** A new element; `properties` may hold class, text, data-…, aria-… and on… listeners. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") made.textContent = value;
    else if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children);
  return made;
}

/** Set the text of an element, only when it changes: screen readers and selections stay undisturbed. */
export function say(element, text) {
  const wanted = text ?? "";
  if (element.textContent !== wanted) element.textContent = wanted;
}

/** Show or hide an element. */
export function show(element, isShown) {
  if (element.hidden === isShown) element.hidden = !isShown;
}

/**
 * Make the children of `parent` those of `items`, in order, keeping what is there: focus and scrolling stay.
 * `make(item)` gives an element, `fill(element, item)` puts the values into it.
 */
export function keep(parent, items, keyOf, make, fill) {
  const present = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let next = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let child = present.get(key);
    if (child === undefined) {
      child = make(item);
      child.dataset.key = key;
    }
    present.delete(key);
    fill(child, item);
    if (child === next) next = next.nextElementSibling;
    else parent.insertBefore(child, next);
  }
  for (const child of present.values()) child.remove();
}

/** Put a text on the clipboard and say so on the button. */
export async function copy(text, button) {
  const label = button.dataset.label ?? button.textContent;
  button.dataset.label = label;
  let isDone = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    isDone = copyBySelection(text); // http:// on another host: there is no clipboard API
  }
  button.textContent = isDone ? "Copied" : "Not copied";
  announce(isDone ? "Copied" : "The browser doesn't let this page copy");
  setTimeout(() => (button.textContent = label), 1500);
}

function copyBySelection(text) {
  const area = el("textarea", { class: "unseen", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const isDone = document.execCommand("copy");
  area.remove();
  return isDone;
}

/** Tell screen readers. */
export function announce(text) {
  $("said").textContent = text;
}
