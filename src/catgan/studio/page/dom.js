// A few words for building the page.

export const $ = (id) => document.getElementById(id);

// element("button", { type: "button", onclick }, "text", child, ...)
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role" || key === "for") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children);
  return made;
}

export function button(text, onclick, properties = {}) {
  return element("button", { type: "button", onclick, ...properties }, text);
}

// A canvas with words for those who do not see it.
export function canvas(words = "") {
  const made = element("canvas", { width: 8, height: 8, role: "img" });
  made.setAttribute("aria-label", words);
  return made;
}
