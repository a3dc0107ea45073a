// The kit of all pages: the content, and small makers of elements. Content only ever becomes text, never markup.
const P = JSON.parse(document.getElementById("parameters").textContent);
const main = document.querySelector("main");

// An element; attributes that are functions are listeners, true and false are properties that are there or not.
function el(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function put(...made) {
  main.append(...made);
}

function button(name, click, attributes) {
  return el("button", { type: "button", click, ...attributes }, name);
}

let fieldCount = 0;

// A labelled control in a row of its own.
function labelled(label, control) {
  control.id = "field-" + ++fieldCount;
  return el("div", { class: "row" }, el("label", { for: control.id }, label), control);
}

function textInput(attributes) {
  return el("input", { type: "text", autocomplete: "off", spellcheck: "false", ...attributes });
}

function choices(options, chosen) {
  const list = el("select", {}, ...options.map((option) => el("option", { value: option }, option || "Choose")));
  list.value = chosen === undefined ? options[0] : chosen;
  return list;
}

// A checkbox or a radio button with its label after it.
function tick(label, attributes) {
  const box = el("input", { type: "checkbox", ...attributes });
  box.id = "field-" + ++fieldCount;
  return { box, row: el("div", {}, box, el("label", { for: box.id }, " " + label)) };
}

const statusLine = el("p", { class: "status", role: "status" });

function say(text, bad) {
  statusLine.textContent = text;
  statusLine.classList.toggle("bad", Boolean(bad));
}

// Nothing can be changed any more.
function lock() {
  for (const control of main.querySelectorAll("button, input, select, textarea")) control.disabled = true;
}

// A dialog in front of the page; gives the function that closes it.
function dialog(title, ...children) {
  const box = el("div", { class: "dialog", role: "dialog", "aria-modal": "true", "aria-label": title }, el("h2", {}, title), ...children);
  const veil = el("div", { class: "veil" }, box);
  document.body.append(veil);
  main.inert = true;
  return () => {
    veil.remove();
    main.inert = false;
  };
}

// Makes elements movable with the mouse. `drop(element, x, y)` is told where one was let go.
function movable(element, drop) {
  element.addEventListener("mousedown", (down) => {
    down.preventDefault();
    const move = (event) => {
      element.style.transform = `translate(${event.clientX - down.clientX}px, ${event.clientY - down.clientY}px)`;
    };
    const up = (event) => {
      document.removeEventListener("mousemove", move);
      document.removeEventListener("mouseup", up);
      element.style.transform = "";
      drop(element, event.clientX, event.clientY);
    };
    document.addEventListener("mousemove", move);
    document.addEventListener("mouseup", up);
  });
  return element;
}

function isInside(element, x, y) {
  const box = element.getBoundingClientRect();
  return x >= box.left && x <= box.right && y >= box.top && y <= box.bottom;
}

function pairs(keys, value) {
  return Object.fromEntries(keys.map((key, at) => [key, value(key, at)]));
}

document.title = P.title || "Page";
put(el("h1", {}, document.title));
