"use strict";
// The canvas: a picture before and after, with a border between them, zoomed and moved.

class Viewer {
  constructor(root, canvas) {
    this.root = root; this.canvas = canvas; this.context = canvas.getContext("2d");
    this.size = null;      // [height, width] of the picture
    this.zoom = 0;         // 0: fits
    this.middle = [0, 0];  // row and column in the middle of the frame
    this.split = 0.5; this.show = "both"; this.gain = 4; this.percent = 99;
    this.part = null;      // what was received: a part of the picture
    this.images = {};      // its layers, as canvases
    this.moved = () => {}; // called when another part is visible
    this.slid = () => {};  // called when the border moved
    this.pointers = new Map();
    for (const name of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) root.addEventListener(name, (event) => this.point(event));
    root.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    new ResizeObserver(() => { this.fitCanvas(); this.moved(); }).observe(root);
  }
  fitCanvas() {
    this.ratio = window.devicePixelRatio || 1;
    this.canvas.width = this.root.clientWidth * this.ratio;
    this.canvas.height = this.root.clientHeight * this.ratio;
    this.draw();
  }
  open(height, width) {
    this.size = [height, width]; this.zoom = 0; this.middle = [height / 2, width / 2]; this.part = null; this.draw();
  }
  scale() {  // pixels of the screen for one of the picture
    if (this.zoom) return this.zoom;
    const fit = Math.min(this.root.clientHeight / this.size[0], this.root.clientWidth / this.size[1]);
    return fit > 1 ? Math.max(1, Math.min(Math.floor(fit), 8)) : fit;
  }
  place() {  // left, top, scale of the picture in the frame
    const scale = this.scale(), frame = [this.root.clientHeight, this.root.clientWidth];
    for (const axis of [0, 1]) {  // small pictures stay in the middle, large ones fill the frame
      const half = frame[axis] / scale / 2;
      this.middle[axis] = 2 * half >= this.size[axis] ? this.size[axis] / 2
        : Math.min(Math.max(this.middle[axis], half), this.size[axis] - half);
    }
    return [frame[1] / 2 - this.middle[1] * scale, frame[0] / 2 - this.middle[0] * scale, scale];
  }
  visible() {  // borders and step of the part that can be seen
    const [left, top, scale] = this.place(), step = Math.max(1, Math.floor(1 / scale));
    const borders = [[-top, this.root.clientHeight - top], [-left, this.root.clientWidth - left]].flatMap(([start, stop], axis) => [
      Math.max(0, Math.floor(start / scale / step) * step), Math.min(this.size[axis], Math.ceil(stop / scale / step) * step)]);
    return { borders, step };
  }
  zoomTo(zoom, row, column) {  // with one pixel of the picture where it is
    const [left, top, before] = this.place();
    row ??= this.middle[0]; column ??= this.middle[1];
    const y = top + row * before, x = left + column * before;
    this.zoom = zoom;
    const after = this.scale();
    this.middle = [row - (y - this.root.clientHeight / 2) / after, column - (x - this.root.clientWidth / 2) / after];
    this.draw(); this.moved();
  }
  zoomBy(factor, row, column) {
    this.zoomTo(Math.min(64, Math.max(this.scale() * factor, 1 / 64)), row, column);
  }
  pan(rows, columns) {
    const scale = this.scale();
    this.middle = [this.middle[0] + rows / scale, this.middle[1] + columns / scale];
    this.draw(); this.moved();
  }
  begin(head, pixels) {  // the pixels of the input arrived
    const [height, width, channels] = head.shape;
    this.part = { row: head.row, column: head.column, step: head.step, height, width, channels, dtype: head.dtype,
      percentiles: head.percentiles, before: pixels, after: new Float32Array(pixels.length), known: new Uint8Array(height * width) };
    this.render();
  }
  add(head, pixels) {  // pixels of the result arrived
    const { part } = this, [height, width, channels] = head.shape;
    if (!part || channels !== part.channels) return;
    const top = (head.row - part.row) / part.step, left = (head.column - part.column) / part.step;
    for (let y = 0; y < height; y++) {
      const start = (top + y) * part.width + left;
      part.after.set(pixels.subarray(y * width * channels, (y + 1) * width * channels), start * channels);
      part.known.fill(1, start, start + width);
    }
    this.render();
  }
  same() {  // nothing is changed by denoising
    if (this.part) { this.part.after.set(this.part.before); this.part.known.fill(1); this.render(); }
  }
  forget() {  // the result is out of date
    if (this.part) { this.part.known.fill(0); this.render(); }
  }
  limits() {  // stored values that are black and white on both sides
    const { percentiles, dtype } = this.part;
    if (this.percent === "type" && dtype !== "f4") return [0, dtype === "u1" ? 255 : 65535];
    const outside = (100 - (this.percent === "type" ? 100 : this.percent)) / 2;
    const at = (percent) => {
      const i = percentiles.findIndex((pair) => pair[0] >= percent);
      if (i <= 0) return percentiles[0][1];
      const [[p, a], [q, b]] = [percentiles[i - 1], percentiles[i]];
      return a + (b - a) * (percent - p) / (q - p);
    };
    const low = at(outside), high = at(100 - outside);
    return high > low ? [low, high] : [low, low + 1];
  }
  render() {  // values to colours, at the next frame
    this.stale = true;
    this.frame ??= requestAnimationFrame(() => { this.frame = null; this.paint(); });
  }
  paint() {
    if (this.stale && this.part) {
      this.stale = false;
      const { before, after, known, width, height, channels } = this.part, [low, high] = this.limits(), scale = 255 / (high - low);
      const layers = { before: new ImageData(width, height), after: new ImageData(width, height) };
      if (this.show === "residual") layers.residual = new ImageData(width, height);
      for (let i = 0, o = 0; i < known.length; i++, o += 4) for (let c = 0; c < 3; c++) {
        const at = i * channels + (channels === 1 ? 0 : c), one = (before[at] - low) * scale;
        layers.before.data[o + c] = one; layers.before.data[o + 3] = layers.after.data[o + 3] = 255;
        layers.after.data[o + c] = known[i] ? (after[at] - low) * scale : 60 + Math.min(255, Math.max(0, one)) / 2;
        if (layers.residual) {
          layers.residual.data[o + c] = known[i] ? 128 + this.gain * (before[at] - after[at]) * scale : 128;
          layers.residual.data[o + 3] = 255;
        }
      }
      for (const [name, data] of Object.entries(layers)) {
        const image = this.images[name] ??= document.createElement("canvas");
        image.width = width; image.height = height;
        image.getContext("2d").putImageData(data, 0, 0);
      }
    }
    this.draw();
  }
  draw() {
    const { context, canvas, part } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!part || !this.size) return;
    const [left, top, scale] = this.place(), { ratio } = this;
    const box = [left + part.column * scale, top + part.row * scale, part.width * part.step * scale, part.height * part.step * scale].map((v) => v * ratio);
    context.imageSmoothingEnabled = scale < 1;
    const layer = (name, from, to) => {
      if (!this.images[name]) return;
      context.save(); context.beginPath(); context.rect(from, 0, to - from, canvas.height); context.clip();
      context.drawImage(this.images[name], ...box); context.restore();
    };
    if (this.show !== "both") return layer(this.show, 0, canvas.width);
    const border = this.border() * ratio;
    layer("before", 0, border); layer("after", border, canvas.width);
    context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent");
    context.fillRect(border - ratio, 0, 2 * ratio, canvas.height);
  }
  edges() {  // left and right end of the visible picture in the frame
    const [left, , scale] = this.place();
    return [Math.max(0, left), Math.min(this.root.clientWidth, left + this.size[1] * scale)];
  }
  border() {
    const [from, to] = this.edges();
    return from + this.split * (to - from);
  }
  slide(x) {
    const [from, to] = this.edges();
    this.split = Math.min(1, Math.max(0, (x - from) / (to - from)));
    this.slid(); this.draw();
  }
  point(event) {
    if (!this.size) return;
    const box = this.root.getBoundingClientRect(), at = { x: event.clientX - box.left, y: event.clientY - box.top };
    if (event.type === "pointerup" || event.type === "pointercancel") { this.pointers.delete(event.pointerId); return; }
    if (event.type === "pointerdown") {
      if (event.button !== 0) return;
      this.root.setPointerCapture(event.pointerId);
      const [left, top, scale] = this.place();
      const larger = left < -1 || top < -1 || left + this.size[1] * scale > box.width + 1;
      this.sliding = this.show === "both" && (!larger || Math.abs(at.x - this.border()) < 16);
      this.pointers.set(event.pointerId, at);
      if (this.sliding) this.slide(at.x);
      return;
    }
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    if (this.pointers.size === 2) {  // two fingers: zoom
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
      const apart = (one) => Math.hypot(one.x - other.x, one.y - other.y);
      if (apart(before) > 0) this.zoomBy(apart(at) / apart(before));
    } else if (this.sliding) this.slide(at.x);
    else this.pan(before.y - at.y, before.x - at.x);
    this.pointers.set(event.pointerId, at);
  }
  wheel(event) {
    if (!this.size) return;
    event.preventDefault();
    const box = this.root.getBoundingClientRect(), [left, top, scale] = this.place();
    const row = (event.clientY - box.top - top) / scale, column = (event.clientX - box.left - left) / scale;
    this.zoomBy(event.deltaY < 0 ? 1.25 : 0.8, row, column);
  }
}
