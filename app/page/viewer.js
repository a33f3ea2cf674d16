// Two pictures of one size under a slider, zoomed and moved together. `element` and `watch` come from gr.HTML.
const stage = element.querySelector(".stage");
const images = [...element.querySelectorAll("img")];
const [left, right] = images;
const tags = [...element.querySelectorAll(".tag")];
const handle = element.querySelector(".handle");
const percent = element.querySelector("output");
const pointers = new Map();
let width = 0, height = 0, zoom = 1, x = 0, y = 0, split = 0.5, fitted = true, dragging = "";

const pixel = () => 1 / devicePixelRatio; // CSS pixels of one picture pixel at 1:1
const fitZoom = () => Math.min(stage.clientWidth / width, stage.clientHeight / height, 4);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

function place() {
  if (!width) return;
  if (fitted) zoom = fitZoom();
  const margins = [stage.clientWidth - width * zoom, stage.clientHeight - height * zoom];
  const inside = (offset, margin) => (margin > 0 ? margin / 2 : clamp(offset, margin, 0));
  const snap = (value) => Math.round(value * devicePixelRatio) / devicePixelRatio;
  [x, y] = [snap(inside(x, margins[0])), snap(inside(y, margins[1]))];
  const edge = split * stage.clientWidth;
  for (const image of images) {
    image.style.width = `${width}px`;
    image.style.height = `${height}px`;
    image.style.transform = `translate(${x}px, ${y}px) scale(${zoom})`;
    image.style.imageRendering = zoom * devicePixelRatio > 0.99 ? "pixelated" : "auto";
  }
  right.parentElement.style.clipPath = `inset(0 0 0 ${edge}px)`;
  left.parentElement.style.clipPath = `inset(0 ${stage.clientWidth - edge}px 0 0)`;
  handle.style.left = `${edge}px`;
  handle.setAttribute("aria-valuenow", Math.round(100 * split));
  percent.textContent = `${Math.round(100 * zoom * devicePixelRatio)}%`;
  for (const button of element.querySelectorAll("[data-zoom]")) {
    const wanted = Number(button.dataset.zoom);
    button.ariaPressed = String(wanted ? !fitted && Math.abs(zoom - wanted * pixel()) < 1e-6 : fitted);
  }
}

function zoomTo(next, centerX = stage.clientWidth / 2, centerY = stage.clientHeight / 2) {
  next = clamp(next, Math.min(fitZoom(), pixel()), 16 * pixel());
  x = centerX - ((centerX - x) * next) / zoom;
  y = centerY - ((centerY - y) * next) / zoom;
  zoom = next;
  fitted = false;
  place();
}

function choose(wanted) {
  if (wanted) return zoomTo(wanted * pixel());
  fitted = true;
  place();
}

const local = (event) => {
  const box = stage.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};

stage.addEventListener("wheel", (event) => {
  if (!width) return;
  event.preventDefault();
  zoomTo(zoom * Math.exp(-event.deltaY / 400), ...local(event));
}, { passive: false });

stage.addEventListener("pointerdown", (event) => {
  stage.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, local(event));
  const larger = width * zoom > stage.clientWidth + 1 || height * zoom > stage.clientHeight + 1;
  const near = Math.abs(local(event)[0] - split * stage.clientWidth) < 24;
  dragging = pointers.size === 1 && (near || !larger) ? "split" : "picture";
  if (dragging === "split") moveSplit(local(event)[0]);
});

function moveSplit(to) {
  split = clamp(to / stage.clientWidth, 0, 1);
  place();
}

stage.addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const now = local(event);
  pointers.set(event.pointerId, now);
  if (dragging === "split") return moveSplit(now[0]);
  if (pointers.size === 2) {
    const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
    const distance = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
    return zoomTo((zoom * distance(now)) / Math.max(distance(before), 1), ...other);
  }
  x += now[0] - before[0];
  y += now[1] - before[1];
  place();
});

for (const name of ["pointerup", "pointercancel"]) {
  stage.addEventListener(name, (event) => pointers.delete(event.pointerId));
}

stage.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key];
  const wanted = { 0: 0, 1: 1, 4: 4 }[event.key];
  if (step) moveSplit((split + step) * stage.clientWidth);
  if (wanted !== undefined) choose(wanted);
  if (step || wanted !== undefined) event.preventDefault();
});

for (const button of element.querySelectorAll("[data-zoom]")) {
  button.addEventListener("click", () => choose(Number(button.dataset.zoom)));
}
for (const button of element.querySelectorAll("[data-split]")) {
  button.addEventListener("click", () => moveSplit(Number(button.dataset.split) * stage.clientWidth));
}

// A new pair appears only when both pictures are there, so that nothing flickers and no half is stale.
async function show(value) {
  if (!value) return;
  const base = (window.gradio_config?.root ?? "") + "/gradio_api/file=";
  const load = async (side) => {
    const image = new Image();
    image.src = base + encodeURI(side.path);
    await image.decode();
    return image;
  };
  const loaded = await Promise.all(value.sides.map(load)).catch((error) => {
    if (value === latest) throw error; // otherwise it was removed because newer ones are there
  });
  if (value !== latest) return;
  if (value.width !== width || value.height !== height) fitted = true;
  [width, height] = [value.width, value.height];
  images.forEach((image, i) => {
    image.src = loaded[i].src;
    image.alt = tags[i].textContent = value.sides[i].title;
  });
  stage.classList.add("filled");
  place();
  element.dataset.shown = value.sides.map((side) => side.path).join(" ");
}

let latest = props.value;
watch("value", () => show((latest = props.value)));
new ResizeObserver(place).observe(stage);
show(latest);
