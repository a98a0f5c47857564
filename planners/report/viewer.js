// The rotating heart of a vtwin report: plain WebGL, no library, no network. DATA is written above by viewer.py.
(async function () {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const all = (selector) => Array.from(document.querySelectorAll(selector));
  const section = $("viewer"), stage = $("stage"), canvas = $("heart");
  // without a GPU, smooth edges cost most of a frame; there the picture is also drawn coarser while it moves
  function isSoftware() {
    const probe = document.createElement("canvas").getContext("webgl"), info = probe && probe.getExtension("WEBGL_debug_renderer_info");
    return Boolean(info) && /swiftshader|llvmpipe|software|basic render/i.test(probe.getParameter(info.UNMASKED_RENDERER_WEBGL));
  }
  const software = isSoftware();
  const gl = canvas.getContext("webgl", { antialias: !software, alpha: false });
  if (!gl || typeof DecompressionStream === "undefined" || !gl.getExtension("OES_element_index_uint")) {
    section.classList.add("no-webgl");
    return;
  }
  section.classList.add("webgl");

  // ---- data: base64, deflated -> typed arrays
  async function unpack(text, Kind) {
    const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Kind(await new Response(stream).arrayBuffer());
  }
  const NOTHING = 65535, NEVER = -1e9;
  const spread = (steps, first, span) => Float32Array.from(steps, (v) => (v === NOTHING ? NEVER : first + (v / (NOTHING - 1)) * span));
  const position = Float32Array.from(await unpack(DATA.position, Uint16Array), (v) => (v / 65535 - 0.5) * 2 * DATA.reach);
  const colour = Float32Array.from(await unpack(DATA.colour, Uint8Array), (v) => v / 255);

  function normals(p, triangles) {
    const n = new Float32Array(p.length);
    for (let t = 0; t < triangles.length; t += 3) {
      const a = 3 * triangles[t], b = 3 * triangles[t + 1], c = 3 * triangles[t + 2];
      const ux = p[b] - p[a], uy = p[b + 1] - p[a + 1], uz = p[b + 2] - p[a + 2];
      const vx = p[c] - p[a], vy = p[c + 1] - p[a + 1], vz = p[c + 2] - p[a + 2];
      const x = uy * vz - uz * vy, y = uz * vx - ux * vz, z = ux * vy - uy * vx;
      for (const i of [a, b, c]) { n[i] += x; n[i + 1] += y; n[i + 2] += z; }
    }
    return n;
  }

  // ---- programs and buffers
  const vertexSource = `
    attribute vec3 position, normal, colour; attribute float value;
    uniform mat3 turn; uniform vec2 scale, pan; uniform float depth, clip;
    varying vec3 vNormal, vColour; varying float vValue, vClip;
    void main() {
      vec3 p = turn * position;
      vNormal = turn * normal; vColour = colour; vValue = value; vClip = p.z - clip;
      gl_Position = vec4(p.xy * scale + pan, -p.z * depth, 1.0);
    }`;
  // mode 0: tissue, 1: isochrones, 2: movie, 3: voltage between two thresholds (first, span)
  const fragmentSource = `
    precision mediump float;
    varying vec3 vNormal, vColour; varying highp float vValue, vClip;
    uniform float opacity, mode; uniform highp float now, period, first, span; uniform vec3 scar, border, healthy, none;
    vec3 viridis(float t) {
      vec3 a = vec3(0.267, 0.005, 0.329), b = vec3(0.229, 0.322, 0.546), c = vec3(0.128, 0.567, 0.551),
           d = vec3(0.369, 0.789, 0.383), e = vec3(0.993, 0.906, 0.144);
      t = clamp(t, 0.0, 1.0) * 4.0;
      return t < 1.0 ? mix(a, b, t) : t < 2.0 ? mix(b, c, t - 1.0) : t < 3.0 ? mix(c, d, t - 2.0) : mix(d, e, t - 3.0);
    }
    void main() {
      if (vClip > 0.0) discard;
      vec3 n = normalize(vNormal);
      float light = 0.45 + 0.55 * max(0.0, dot(n * sign(n.z + 1e-6), normalize(vec3(-0.35, 0.45, 0.82))));
      vec3 base = vColour;
      bool known = vValue > -1e8;
      if (mode > 2.5) base = !known ? none : vValue < first ? scar : vValue < first + span ? border : healthy;
      else if (mode > 1.5) {
        highp float since = now - vValue;
        if (period > 0.0) since = mod(since, period);
        float glow = !known || since < 0.0 ? 0.0 : exp(-since / 28.0);
        base = mix(base * 0.82, vec3(0.90, 0.32, 0.0), glow);
      } else if (mode > 0.5) base = known ? viridis(floor((vValue - first) / span * 10.0) / 10.0 + 0.05) : none;
      gl_FragColor = vec4(base * light, opacity);
    }`;
  function shader(type, source) {
    const s = gl.createShader(type);
    gl.shaderSource(s, source);
    gl.compileShader(s);
    if (!gl.getShaderParameter(s, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(s));
    return s;
  }
  const program = gl.createProgram();
  gl.attachShader(program, shader(gl.VERTEX_SHADER, vertexSource));
  gl.attachShader(program, shader(gl.FRAGMENT_SHADER, fragmentSource));
  gl.linkProgram(program);
  gl.useProgram(program);
  const attribute = {}, uniform = {};
  for (const name of ["position", "normal", "colour", "value"]) attribute[name] = gl.getAttribLocation(program, name);
  for (const name of ["turn", "scale", "pan", "depth", "clip", "opacity", "mode", "now", "period", "first", "span", "scar", "border", "healthy", "none"])
    uniform[name] = gl.getUniformLocation(program, name);
  for (const name of ["scar", "border", "healthy", "none"]) gl.uniform3fv(uniform[name], DATA.colours[name]);
  function buffer(data, target) {
    const b = gl.createBuffer();
    gl.bindBuffer(target || gl.ARRAY_BUFFER, b);
    gl.bufferData(target || gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
    return b;
  }
  const heart = { position: buffer(position), colour: buffer(colour) };
  const blank = (n) => buffer(new Float32Array(n).fill(NEVER));
  const nothing = blank(position.length / 3);
  const parts = [];
  for (const p of DATA.parts) {
    const tri = await unpack(p.triangles, Uint32Array);
    parts.push({ name: p.name, points: position, tri, index: buffer(tri, gl.ELEMENT_ARRAY_BUFFER), normal: buffer(normals(position, tri)) });
  }
  const marks = [];
  for (const m of DATA.marks) {
    const p = await unpack(m.position, Float32Array), tri = await unpack(m.triangles, Uint32Array);
    const tint = Float32Array.from(await unpack(m.colour, Uint8Array), (v) => v / 255);
    marks.push({ name: m.name, points: p, tri, index: buffer(tri, gl.ELEMENT_ARRAY_BUFFER), position: buffer(p), colour: buffer(tint),
      normal: buffer(normals(p, tri)), value: blank(p.length / 3) });
  }
  const waves = [];
  for (const w of DATA.waves) waves.push({ ...w, buffer: buffer(spread(await unpack(w.time, Uint16Array), 0, w.span)) });
  const volts = DATA.voltage && buffer(spread(await unpack(DATA.voltage.values, Uint16Array), 0, DATA.voltage.most));

  // ---- state
  const still = window.matchMedia && matchMedia("(prefers-reduced-motion: reduce)").matches;
  const home = () => ({ turn: DATA.views.scar.slice(), zoom: 0.95, pan: [0, 0] });
  let eye = home(), playing = !still, now = 0, dirty = true, measuring = false, ruler = [], chosen = null;
  const value = (id, other) => ($(id) ? +$(id).value : other);
  const shown = (name) => !$("show-" + name) || $("show-" + name).checked;
  const colouring = () => { const [mode, k] = $("colour-by").value.split(":"); return { mode, wave: k === undefined ? null : waves[+k], k }; };
  const lasts = (wave) => wave.period || wave.span + 60;
  const redraw = () => { dirty = true; };

  // ---- drawing
  function scales() {
    const w = canvas.clientWidth || 1, h = canvas.clientHeight || 1, s = eye.zoom / DATA.radius;
    // the radius fits the shorter side
    return w > h ? [(s * h) / w, s] : [s, (s * w) / h];
  }
  function bind(name, b, size) {
    gl.bindBuffer(gl.ARRAY_BUFFER, b);
    gl.enableVertexAttribArray(attribute[name]);
    gl.vertexAttribPointer(attribute[name], size, gl.FLOAT, false, 0, 0);
  }
  function body(b, count, opacity) {
    gl.uniform1f(uniform.opacity, opacity);
    gl.depthMask(opacity > 0.98);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, b);
    gl.drawElements(gl.TRIANGLES, count, gl.UNSIGNED_INT, 0);
    gl.depthMask(true);
  }
  const opacityOf = (name) => (name === "epi" ? value("opacity", 1) : name === "scar" ? value("scar", 0) : 1);
  function draw(coarse) {
    const ratio = (window.devicePixelRatio || 1) * (coarse ? 0.5 : 1), w = Math.round(canvas.clientWidth * ratio), h = Math.round(canvas.clientHeight * ratio);
    if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
    gl.viewport(0, 0, w, h);
    gl.clearColor(1, 1, 1, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
    gl.polygonOffset(-1, -4);
    const { mode, wave } = colouring();
    gl.uniformMatrix3fv(uniform.turn, false, eye.turn);
    gl.uniform2fv(uniform.scale, scales());
    gl.uniform2fv(uniform.pan, eye.pan);
    gl.uniform1f(uniform.depth, 0.3 / DATA.radius);
    gl.uniform1f(uniform.now, now);
    gl.uniform1f(uniform.period, wave && wave.period ? wave.period : 0);
    const low = value("low-mv", 0.5), high = Math.max(value("high-mv", 1.5), low);
    gl.uniform1f(uniform.first, mode === "voltage" ? low : 0);
    gl.uniform1f(uniform.span, mode === "voltage" ? high - low : wave ? wave.span : 1);
    gl.uniform1f(uniform.clip, 1e9);
    gl.uniform1f(uniform.mode, 0);
    for (const m of marks) {
      const opacity = opacityOf(m.name);
      if (!shown(m.name) || opacity < 0.02) continue;
      bind("position", m.position, 3); bind("normal", m.normal, 3); bind("colour", m.colour, 3); bind("value", m.value, 1);
      // the skin of the scar lies in the wall's own surfaces: a little nearer, so that they do not flicker through each other
      (m.name === "scar" ? gl.enable : gl.disable).call(gl, gl.POLYGON_OFFSET_FILL);
      body(m.index, m.tri.length, m.name === "scar" ? 1 : opacity);
    }
    gl.disable(gl.POLYGON_OFFSET_FILL);
    gl.uniform1f(uniform.clip, (value("clip", 1) * 2 - 1) * DATA.radius);
    gl.uniform1f(uniform.mode, { isochrones: 1, movie: 2, voltage: 3 }[mode] || 0);
    bind("position", heart.position, 3); bind("colour", heart.colour, 3);
    bind("value", mode === "voltage" ? volts : wave ? wave.buffer : nothing, 1);
    for (const p of parts) {
      // the scar inside the wall is seen through the surfaces that cover it
      const cover = (p.name === "lv_endo" || p.name === "rv_endo") && $("scar") ? 1 - 0.85 * value("scar", 0) : 1;
      const opacity = Math.min(opacityOf(p.name), cover);
      if (opacity < 0.02 || !shown(p.name)) continue;
      bind("normal", p.normal, 3);
      body(p.index, p.tri.length, opacity);
    }
    overlay();
  }

  // ---- what lies over the picture: labels, ruler, legend
  const turned = (p) => { const t = eye.turn; return [t[0] * p[0] + t[3] * p[1] + t[6] * p[2], t[1] * p[0] + t[4] * p[1] + t[7] * p[2], t[2] * p[0] + t[5] * p[1] + t[8] * p[2]]; };
  function pixel(p) {
    const q = turned(p), [sx, sy] = scales();
    return [((q[0] * sx + eye.pan[0] + 1) / 2) * canvas.clientWidth, ((1 - q[1] * sy - eye.pan[1]) / 2) * canvas.clientHeight];
  }
  const labels = DATA.labels.map((l) => {
    const e = document.createElement("span");
    e.className = "mark";
    e.textContent = l.text;
    $("labels").append(e);
    return { ...l, e };
  });
  function overlay() {
    let last = null;
    for (const l of labels) {
      const [x, y] = pixel(l.at);
      // marks that lie on one another would hide each other's text
      const hidden = !shown("targets") || (last && Math.hypot(x - last[0], y - last[1]) < 26) || (chosen && chosen !== l.target);
      l.e.style.display = hidden ? "none" : "";
      if (hidden) continue;
      l.e.style.left = x + 16 + "px"; l.e.style.top = y - 16 + "px";
      last = [x, y];
    }
    const dots = ruler.map(pixel);
    $("ruler").innerHTML = dots.map(([x, y]) => `<circle cx="${x}" cy="${y}" r="5" fill="#1b1b1f" stroke="#fff" stroke-width="2"/>`).join("") +
      (dots.length === 2 ? `<line x1="${dots[0][0]}" y1="${dots[0][1]}" x2="${dots[1][0]}" y2="${dots[1][1]}" stroke="#1b1b1f" stroke-width="2" stroke-dasharray="6 4"/>` : "");
  }
  const key = (rgb, text) => `<span class="key" style="background:rgb(${rgb.map((v) => Math.round(255 * v)).join(",")})"></span>${text}`;
  function describe() {
    const { mode, wave, k } = colouring();
    $("movie").hidden = mode !== "movie";
    if ($("thresholds")) $("thresholds").hidden = mode !== "voltage";
    const c = DATA.colours;
    $("legend").innerHTML = mode === "movie" ? key([0.9, 0.32, 0], "the wave now") : mode === "isochrones" ? `0 ms <span class="ramp"></span> ${Math.round(wave.span)} ms` :
      mode === "voltage" ? key(c.scar, `below ${value("low-mv").toFixed(1)} mV`) + key(c.border, `below ${value("high-mv").toFixed(1)} mV`) + key(c.healthy, "above") + key(c.none, "not mapped") :
      key(c.healthy, "healthy") + key(c.border, "border zone") + key(c.scar, "scar");
    all(".wave").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.wave === k)));
    if (mode === "voltage") for (const id of ["low-mv", "high-mv"]) $(id + "-text").textContent = value(id).toFixed(1) + " mV";
    if (wave) $("time").max = Math.round(lasts(wave));
    tick();
  }
  function tick() {
    const { mode, wave } = colouring();
    if (mode !== "movie") return;
    $("time").value = now;
    $("clock").textContent = Math.round(now) + " ms";
    $("time").setAttribute("aria-valuetext", Math.round(now) + " milliseconds");
  }
  function setPlaying(on) {
    playing = on;
    $("play").textContent = playing ? "Pause" : "Play";
  }

  // ---- turning, moving, zooming
  function rotate(dx, dy) {
    const cx = Math.cos(dx), sx = Math.sin(dx), cy = Math.cos(dy), sy = Math.sin(dy);
    const left = [cx, 0, -sx, sx * sy, cy, cx * sy, sx * cy, -sy, cx * cy], t = eye.turn, out = new Array(9);
    for (let c = 0; c < 3; c++) for (let r = 0; r < 3; r++) out[3 * c + r] = left[r] * t[3 * c] + left[3 + r] * t[3 * c + 1] + left[6 + r] * t[3 * c + 2];
    eye.turn = out;
    redraw();
  }
  function zoom(factor) { eye.zoom = Math.min(20, Math.max(0.2, eye.zoom * factor)); redraw(); }
  function move(dx, dy) { eye.pan[0] += dx; eye.pan[1] += dy; redraw(); }
  const fingers = new Map();
  let apart = 0, travelled = 0;
  canvas.addEventListener("pointerdown", (e) => {
    fingers.set(e.pointerId, [e.clientX, e.clientY]);
    canvas.setPointerCapture(e.pointerId);
    travelled = 0;
  });
  canvas.addEventListener("pointermove", (e) => {
    const before = fingers.get(e.pointerId);
    if (!before) return;
    const dx = e.clientX - before[0], dy = e.clientY - before[1];
    travelled += Math.hypot(dx, dy);
    fingers.set(e.pointerId, [e.clientX, e.clientY]);
    if (fingers.size === 2) {
      const [a, b] = Array.from(fingers.values()), d = Math.hypot(a[0] - b[0], a[1] - b[1]);
      if (apart) zoom(d / apart);
      apart = d;
      move(dx / canvas.clientWidth, -dy / canvas.clientHeight);
    } else if (e.shiftKey) move((2 * dx) / canvas.clientWidth, (-2 * dy) / canvas.clientHeight);
    else rotate(dx * 0.01, dy * 0.01);
  });
  function release(e) {
    if (measuring && travelled < 5 && e.type === "pointerup" && fingers.size === 1) {
      const r = canvas.getBoundingClientRect();
      mark(e.clientX - r.left, e.clientY - r.top);
    }
    fingers.delete(e.pointerId);
    apart = 0;
  }
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("wheel", (e) => { if (e.ctrlKey || document.activeElement === canvas) { zoom(Math.exp(-e.deltaY * 0.001)); e.preventDefault(); } }, { passive: false });
  canvas.addEventListener("click", () => canvas.focus({ preventScroll: true }));
  canvas.addEventListener("keydown", (e) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
    if (step && e.shiftKey) move(0.1 * step[0], -0.1 * step[1]);
    else if (step) rotate(0.1 * step[0], 0.1 * step[1]);
    else if (e.key === "+" || e.key === "=") zoom(1.1);
    else if (e.key === "-") zoom(1 / 1.1);
    else if (e.key === " ") setPlaying(!playing);
    else if (e.key === "m" || e.key === "M") mark(canvas.clientWidth / 2, canvas.clientHeight / 2);
    else if (e.key === "r" || e.key === "R") { eye = home(); redraw(); }
    else if (e.key === "Escape") clear();
    else return;
    e.preventDefault();
  });

  // ---- measuring: the nearest surface under a pixel, straight line between two of them
  function hit(x, y) {
    const [sx, sy] = scales(), px = ((2 * x) / canvas.clientWidth - 1 - eye.pan[0]) / sx, py = (1 - (2 * y) / canvas.clientHeight - eye.pan[1]) / sy;
    const clip = (value("clip", 1) * 2 - 1) * DATA.radius;
    let best = null;
    const bodies = [...parts.filter((p) => shown(p.name) && opacityOf(p.name) >= 0.5), ...marks.filter((m) => shown(m.name) && opacityOf(m.name) >= 0.5)];
    for (const b of bodies) {
      const p = b.points, q = new Float32Array(p.length), t = eye.turn;
      for (let i = 0; i < p.length; i += 3) for (let r = 0; r < 3; r++) q[i + r] = t[r] * p[i] + t[3 + r] * p[i + 1] + t[6 + r] * p[i + 2];
      for (let k = 0; k < b.tri.length; k += 3) {
        const i = 3 * b.tri[k], j = 3 * b.tri[k + 1], l = 3 * b.tri[k + 2];
        const ax = q[j] - q[i], ay = q[j + 1] - q[i + 1], bx = q[l] - q[i], by = q[l + 1] - q[i + 1], area = ax * by - bx * ay;
        if (Math.abs(area) < 1e-12) continue;
        const u = ((px - q[i]) * by - bx * (py - q[i + 1])) / area, v = (ax * (py - q[i + 1]) - (px - q[i]) * ay) / area;
        if (u < 0 || v < 0 || u + v > 1) continue;
        const z = q[i + 2] + u * (q[j + 2] - q[i + 2]) + v * (q[l + 2] - q[i + 2]);
        if ((!best || z > best.z) && (z <= clip || !parts.includes(b)))
          best = { z, at: [0, 1, 2].map((c) => p[i + c] + u * (p[j + c] - p[i + c]) + v * (p[l + c] - p[i + c])) };
      }
    }
    return best && best.at;
  }
  function mark(x, y) {
    const at = hit(x, y);
    if (!at) { $("status").textContent = "No surface there: show one that is not clear."; return; }
    ruler = ruler.length === 2 ? [at] : [...ruler, at];
    const d = ruler.length === 2 ? Math.hypot(...[0, 1, 2].map((c) => ruler[0][c] - ruler[1][c])) : 0;
    $("status").textContent = ruler.length === 2 ? `${d.toFixed(1)} mm, straight` : "First point set; choose the second.";
    redraw();
  }
  function clear() {
    ruler = [];
    $("status").textContent = "";
    redraw();
  }

  // ---- controls
  $("measure").addEventListener("click", () => {
    measuring = !measuring;
    $("measure").setAttribute("aria-pressed", String(measuring));
    stage.classList.toggle("measuring", measuring);
    $("status").textContent = measuring ? "Choose two points on a surface (M on the keyboard: the middle of the view)." : "";
  });
  $("clear").addEventListener("click", clear);
  $("play").addEventListener("click", () => setPlaying(!playing));
  all(".look").forEach((b) => b.addEventListener("click", () => { eye = { ...home(), turn: DATA.views[b.dataset.view].slice() }; redraw(); }));
  all(".wave").forEach((b) => b.addEventListener("click", () => { $("colour-by").value = "movie:" + b.dataset.wave; now = 0; describe(); redraw(); }));
  all(".target").forEach((b) => b.addEventListener("click", () => {
    chosen = chosen === b.dataset.target ? null : b.dataset.target;
    all(".target").forEach((other) => other.setAttribute("aria-pressed", String(other.dataset.target === chosen)));
    const mine = labels.filter((l) => l.target === chosen);
    if (mine.length) {
      const middle = [0, 1, 2].map((c) => mine.reduce((sum, l) => sum + l.at[c], 0) / mine.length), q = turned(middle);
      eye.zoom = Math.max(eye.zoom, 1.8);
      const [sx, sy] = scales();
      eye.pan = [-q[0] * sx, -q[1] * sy];
      $("status").textContent = `${chosen}: ${mine.length} lesions`;
    } else { eye = { ...home(), turn: eye.turn }; $("status").textContent = ""; }
    redraw();
  }));
  $("time").addEventListener("input", () => { setPlaying(false); now = +$("time").value; tick(); redraw(); });
  $("colour-by").addEventListener("input", () => { now = 0; describe(); redraw(); });
  for (const id of ["low-mv", "high-mv"]) if ($(id)) $(id).addEventListener("input", () => {
    if (value("low-mv") > value("high-mv")) $(id === "low-mv" ? "high-mv" : "low-mv").value = $(id).value;
    describe();
    redraw();
  });
  all("#viewer input").forEach((e) => e.addEventListener("input", redraw));
  new ResizeObserver(redraw).observe(canvas);

  // ---- frames: only what changed is drawn
  let last = 0, sharp = true;
  function frame(t) {
    const { mode, wave } = colouring();
    if (mode === "movie" && playing && document.visibilityState !== "hidden") {
      now = (now + Math.min(t - last, 100) * 0.12) % lasts(wave);
      tick();
      dirty = true;
    }
    last = t;
    if (dirty) { dirty = false; sharp = !software; draw(!sharp); }
    else if (!sharp) { sharp = true; draw(); }
    requestAnimationFrame(frame);
  }
  setPlaying(playing);
  describe();
  draw();
  performance.mark("first-heart");
  section.dataset.ready = "yes";
  window.vtwinView = { rotate, draw, finish: () => gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4)), ruler: () => ruler };
  requestAnimationFrame(frame);
})();
