// The rotating heart of a vtwin report: plain WebGL, no library, no network. DATA is written above by build.py.
(function () {
  "use strict";
  const canvas = document.getElementById("heart");
  const gl = canvas.getContext("webgl", { antialias: true, preserveDrawingBuffer: true });
  if (!gl) {
    document.getElementById("viewer").classList.add("no-webgl");
    return;
  }
  gl.getExtension("OES_element_index_uint");
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const floats = (text) => new Float32Array(bytes(text).buffer);
  const indices = (text) => new Uint32Array(bytes(text).buffer);

  const vertexSource = `
    attribute vec3 position, normal, colour; attribute float time;
    uniform mat3 turn; uniform vec2 scale; uniform vec2 pan; uniform float depth, clip;
    varying vec3 vNormal, vColour; varying float vTime, vClip;
    void main() {
      vec3 p = turn * position;
      vNormal = turn * normal; vColour = colour; vTime = time; vClip = p.z - clip;
      gl_Position = vec4(p.xy * scale + pan, -p.z * depth, 1.0);
    }`;
  const fragmentSource = `
    precision mediump float;
    varying vec3 vNormal, vColour; varying float vTime, vClip;
    uniform float opacity, now, period, first, span, mode;
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
      if (mode > 0.5) {
        if (vTime < -9e8) base = mode < 1.5 ? vec3(0.72) : base;
        else if (mode < 1.5) base = viridis(floor((vTime - first) / span * 10.0) / 10.0 + 0.05);
        else {
          float since = now - vTime;
          if (period > 0.0) since = mod(since, period);
          float glow = since < 0.0 ? 0.0 : exp(-since / 28.0);
          base = mix(base * 0.82, vec3(0.90, 0.32, 0.0), glow);
        }
      }
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
  const at = (name) => gl.getAttribLocation(program, name);
  const u = (name) => gl.getUniformLocation(program, name);

  function buffer(data, target) {
    const b = gl.createBuffer();
    gl.bindBuffer(target || gl.ARRAY_BUFFER, b);
    gl.bufferData(target || gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
    return b;
  }
  function normals(position, triangles) {
    const n = new Float32Array(position.length);
    for (let t = 0; t < triangles.length; t += 3) {
      const a = 3 * triangles[t], b = 3 * triangles[t + 1], c = 3 * triangles[t + 2];
      const ux = position[b] - position[a], uy = position[b + 1] - position[a + 1], uz = position[b + 2] - position[a + 2];
      const vx = position[c] - position[a], vy = position[c + 1] - position[a + 1], vz = position[c + 2] - position[a + 2];
      const x = uy * vz - uz * vy, y = uz * vx - ux * vz, z = ux * vy - uy * vx;
      for (const i of [a, b, c]) { n[i] += x; n[i + 1] += y; n[i + 2] += z; }
    }
    return n;
  }
  const position = floats(DATA.position), colour = floats(DATA.colour);
  const heart = { position: buffer(position), colour: buffer(colour), count: position.length / 3 };
  const parts = DATA.parts.map((p) => {
    const tri = indices(p.triangles);
    return { name: p.name, n: tri.length, index: buffer(tri, gl.ELEMENT_ARRAY_BUFFER), normal: buffer(normals(position, tri)), opacity: p.opacity };
  });
  const waves = DATA.waves.map((w) => ({ title: w.title, period: w.period, first: w.first, span: w.span, buffer: buffer(floats(w.time)) }));
  const noWave = buffer(new Float32Array(heart.count).fill(-1e9));
  const marks = DATA.marks.map((m) => {
    const p = floats(m.position), tri = indices(m.triangles);
    return { name: m.name, n: tri.length, position: buffer(p), colour: buffer(floats(m.colour)), normal: buffer(normals(p, tri)),
      index: buffer(tri, gl.ELEMENT_ARRAY_BUFFER), time: buffer(new Float32Array(p.length / 3).fill(-1e9)) };
  });

  let turn = DATA.view.slice(), zoom = 0.95, pan = [0, 0], clip = 1, playing = true, now = 0;
  const $ = (id) => document.getElementById(id);
  const checked = (id) => !$(id) || $(id).checked;
  function bind(name, b, size) {
    gl.bindBuffer(gl.ARRAY_BUFFER, b);
    gl.enableVertexAttribArray(at(name));
    gl.vertexAttribPointer(at(name), size, gl.FLOAT, false, 0, 0);
  }
  function draw() {
    const ratio = window.devicePixelRatio || 1, w = Math.round(canvas.clientWidth * ratio), h = Math.round(canvas.clientHeight * ratio);
    if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
    gl.viewport(0, 0, w, h);
    gl.clearColor(1, 1, 1, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
    const s = zoom / DATA.radius;
    gl.uniformMatrix3fv(u("turn"), false, turn);
    gl.uniform2f(u("scale"), (s * h) / Math.max(w, h) * Math.max(1, h / w) * (w > h ? 1 : w / h), s * (w > h ? 1 : w / h));
    gl.uniform2f(u("pan"), pan[0], pan[1]);
    gl.uniform1f(u("depth"), 0.3 / DATA.radius);
    const [mode, number] = $("colour-by").value.split(":");
    const wave = number === undefined ? null : waves[+number];
    gl.uniform1f(u("now"), now);
    gl.uniform1f(u("period"), wave && wave.period ? wave.period : 0);
    gl.uniform1f(u("first"), wave ? wave.first : 0);
    gl.uniform1f(u("span"), wave ? wave.span : 1);
    gl.uniform1f(u("clip"), 1e9);
    gl.uniform1f(u("mode"), 0);
    gl.uniform1f(u("opacity"), 1);
    for (const m of marks) {
      if (!checked("show-" + m.name)) continue;
      bind("position", m.position, 3); bind("normal", m.normal, 3); bind("colour", m.colour, 3); bind("time", m.time, 1);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, m.index);
      gl.drawElements(gl.TRIANGLES, m.n, gl.UNSIGNED_INT, 0);
    }
    gl.uniform1f(u("clip"), (clip * 2 - 1) * DATA.radius);
    gl.uniform1f(u("mode"), mode === "isochrones" ? 1 : mode === "movie" ? 2 : 0);
    bind("position", heart.position, 3); bind("colour", heart.colour, 3); bind("time", wave ? wave.buffer : noWave, 1);
    for (const p of parts) {
      const opacity = p.name === "epi" ? +$("opacity").value : 1;
      if (opacity < 0.02 || !checked("show-" + p.name)) continue;
      bind("normal", p.normal, 3);
      gl.uniform1f(u("opacity"), opacity);
      gl.depthMask(opacity > 0.98);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, p.index);
      gl.drawElements(gl.TRIANGLES, p.n, gl.UNSIGNED_INT, 0);
    }
    gl.depthMask(true);
    $("clock").textContent = mode === "movie" ? Math.round(wave && wave.period ? ((now % wave.period) + wave.period) % wave.period : now) + " ms" : "";
  }
  function rotate(dx, dy) {
    const cx = Math.cos(dx), sx = Math.sin(dx), cy = Math.cos(dy), sy = Math.sin(dy);
    const left = [cx, 0, -sx, sx * sy, cy, cx * sy, sx * cy, -sy, cx * cy];
    const out = new Array(9);
    for (let c = 0; c < 3; c++) for (let r = 0; r < 3; r++)
      out[3 * c + r] = left[r] * turn[3 * c] + left[3 + r] * turn[3 * c + 1] + left[6 + r] * turn[3 * c + 2];
    turn = out;
  }
  let held = null;
  canvas.addEventListener("pointerdown", (e) => { held = [e.clientX, e.clientY, e.shiftKey]; canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener("pointerup", () => { held = null; });
  canvas.addEventListener("pointermove", (e) => {
    if (!held) return;
    const dx = e.clientX - held[0], dy = e.clientY - held[1];
    if (held[2]) { pan[0] += (2 * dx) / canvas.clientWidth; pan[1] -= (2 * dy) / canvas.clientHeight; }
    else rotate(dx * 0.01, dy * 0.01);
    held = [e.clientX, e.clientY, held[2]];
    draw();
  });
  canvas.addEventListener("wheel", (e) => { zoom *= Math.exp(-e.deltaY * 0.001); e.preventDefault(); draw(); }, { passive: false });
  canvas.addEventListener("keydown", (e) => {
    const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] }[e.key];
    if (step) rotate(step[0], step[1]);
    else if (e.key === "+" || e.key === "=") zoom *= 1.1;
    else if (e.key === "-") zoom /= 1.1;
    else if (e.key === " ") playing = !playing;
    else return;
    e.preventDefault();
    draw();
  });
  $("clip").addEventListener("input", (e) => { clip = +e.target.value; draw(); });
  $("play").addEventListener("click", () => { playing = !playing; $("play").textContent = playing ? "Pause" : "Play"; });
  document.querySelectorAll("#viewer input, #viewer select").forEach((e) => e.addEventListener("input", () => { now = 0; draw(); }));
  window.addEventListener("resize", draw);
  let last = 0;
  function frame(t) {
    const [mode, number] = $("colour-by").value.split(":");
    if (mode === "movie" && playing) {
      const wave = waves[+number];
      now += Math.min(t - last, 100) * 0.12;
      if (!wave.period && now > wave.first + wave.span + 150) now = wave.first - 20;
      draw();
    }
    last = t;
    requestAnimationFrame(frame);
  }
  draw();
  requestAnimationFrame(frame);
})();
