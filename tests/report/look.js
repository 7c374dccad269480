// Runs in the page, by the browser's driver. Returns its headings, and what is wrong.
const wrong = [];
const view = document.documentElement;
if (document.scripts.length) wrong.push("the page has a script");
if (view.scrollWidth > view.clientWidth) wrong.push(`wider than the screen: ${view.scrollWidth} > ${view.clientWidth}`);

const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
for (const id of ids.filter((id, index) => ids.indexOf(id) !== index)) wrong.push(`the id ${id} is there twice`);
for (const link of document.querySelectorAll("a")) {
  if (!document.getElementById(link.hash.slice(1))) wrong.push(`${link.href} leads nowhere`);
}

// In pictures nothing may run out of its box or over something else.
for (const text of document.querySelectorAll("svg text")) {
  const box = text.getBoundingClientRect();
  const picture = text.ownerSVGElement.getBoundingClientRect();
  if (box.right > picture.right + 1) wrong.push(`runs out of the picture: ${text.textContent}`);
  if (text.classList.contains("account")) {
    const pill = text.previousElementSibling.getBoundingClientRect();
    if (box.right > pill.right || box.left < pill.left) wrong.push(`runs out of its pill: ${text.textContent}`);
  }
  if (text.matches(".program, .path")) {
    const pill = text.parentNode.querySelector(".pill").getBoundingClientRect();
    if (box.right > pill.left) wrong.push(`meets its pill: ${text.textContent}`);
  }
}

// Contrast as WCAG 2 counts it: 4.5 for text.
const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const rgb = (text) => text.match(/[\d.]+/g).map(Number);
function ground(element) {
  for (let at = element; at; at = at.parentElement) {
    const pill = at.classList.contains("account") && at.previousElementSibling;
    const colour = rgb(pill ? getComputedStyle(pill).fill : getComputedStyle(at).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
}
const told = new Set();
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || element.closest("title, desc, style, script")) continue;
  const style = getComputedStyle(element);
  const [a, b] = [light(rgb(element.closest("svg") ? style.fill : style.color)), light(ground(element))];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (contrast < 4.5) told.add(`contrast ${contrast.toFixed(1)}: ${element.tagName} ${element.getAttribute("class") || ""}`);
}
wrong.push(...told);
return { wrong, headings: [...document.querySelectorAll("h1, h2, figcaption")].map((heading) => heading.textContent.trim()) };
