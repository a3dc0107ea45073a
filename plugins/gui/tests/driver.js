// Performs reference solutions on pages in frames, as a person would by role and name, and writes down what the pages say of their state.
const { cases } = JSON.parse(document.getElementById("cases").textContent);
const TAGS = { BUTTON: "button", A: "link", SELECT: "combobox", TEXTAREA: "textbox", H1: "heading", H2: "heading" };
const TYPES = { text: "textbox", password: "textbox", checkbox: "checkbox", radio: "radio" };

function roleOf(element) {
  return element.getAttribute("role") || TYPES[element.tagName === "INPUT" ? element.type : ""] || TAGS[element.tagName] || "";
}

function nameOf(element) {
  const label = element.getAttribute("aria-label") || (element.labels && element.labels.length ? element.labels[0].textContent : element.textContent);
  return label.replace(/\s+/g, " ").trim();
}

function find(document, role, name) {
  const fits = (element) => {
    if (element.getClientRects().length === 0 || element.closest("[inert]")) return false;
    if (role === "text") return element.children.length === 0 && nameOf(element) === name;
    return roleOf(element) === role && nameOf(element) === name;
  };
  const found = [...document.querySelectorAll("body *")].filter(fits);
  if (found.length === 0) throw new Error(`there is no ${role} "${name}"`);
  if (found.length > 1) throw new Error(`there are ${found.length} of ${role} "${name}"`);
  if (found[0].disabled) throw new Error(`${role} "${name}" is disabled`);
  return found[0];
}

function mouse(frame, kind, target, [x, y]) {
  target.dispatchEvent(new frame.contentWindow.MouseEvent(kind, { bubbles: true, cancelable: true, clientX: x, clientY: y }));
}

function middle(element) {
  const box = element.getBoundingClientRect();
  return [box.left + box.width / 2, box.top + box.height / 2];
}

const DO = {
  click(frame, role, name) {
    const element = find(frame.contentDocument, role, name);
    element.focus();
    element.click();
  },
  fill(frame, role, name, text) {
    const field = find(frame.contentDocument, role, name);
    if (field.tagName === "SELECT" && ![...field.options].some((option) => option.value === text)) throw new Error(`no choice ${text}`);
    field.focus();
    field.value = text;
    for (const kind of ["input", "change"]) field.dispatchEvent(new frame.contentWindow.Event(kind, { bubbles: true }));
  },
  drag(frame, from, to) {
    const [source, target] = [from, to].map(([role, name]) => find(frame.contentDocument, role, name));
    const [start, end] = [middle(source), middle(target)];
    if (end[1] > 480 || start[1] > 480) throw new Error("a drag leaves the page's 480 pixels");
    mouse(frame, "mousedown", source, start);
    mouse(frame, "mousemove", frame.contentDocument, end);
    mouse(frame, "mouseup", frame.contentDocument, end);
  },
  press(frame, key) {
    frame.contentDocument.activeElement.dispatchEvent(new frame.contentWindow.KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  },
  scroll(frame) {
    frame.contentWindow.scrollTo(0, 100000);
    frame.contentWindow.dispatchEvent(new frame.contentWindow.Event("scroll"));
  },
};

async function play({ html, steps }) {
  const frame = document.createElement("iframe");
  frame.width = 640;
  frame.height = 480;
  const loaded = new Promise((resolve) => frame.addEventListener("load", resolve));
  frame.srcdoc = html;
  document.body.append(frame);
  await loaded;
  const page = frame.contentWindow;
  const states = [];
  try {
    states.push(page.pageState());
    for (const [kind, ...rest] of steps) {
      DO[kind](frame, ...rest);
      states.push(page.pageState());
    }
    // Nothing may be drawn beyond the sides of the page.
    if (page.document.documentElement.scrollWidth > 640) throw new Error("the page is wider than 640 pixels");
    return JSON.parse(JSON.stringify({ states }));
  } catch (error) {
    return { error: String(error) };
  } finally {
    frame.remove();
  }
}

(async () => {
  const results = [];
  for (const one of cases) results.push(await play(one));
  const text = encodeURIComponent(JSON.stringify(results));
  document.body.replaceChildren(Object.assign(document.createElement("pre"), { textContent: `RESULTS:${text}:END` }));
})();
