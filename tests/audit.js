// An accessibility check of our own, after the rules of axe-core that a static page can break; returns findings as text.
(() => {
  const found = [], say = (rule, e, more) => found.push(`${rule}: <${e.tagName.toLowerCase()}${e.id ? " #" + e.id : ""}> ${more || ""} ${(e.textContent || "").trim().slice(0, 40)}`);
  const all = (s) => Array.from(document.querySelectorAll(s));
  const shown = (e) => { const r = e.getBoundingClientRect(), s = getComputedStyle(e); return r.width > 0 && r.height > 0 && s.visibility !== "hidden" && s.display !== "none"; };
  const by = (e, attribute) => (e.getAttribute(attribute) || "").split(/\s+/).filter(Boolean).map((i) => document.getElementById(i));
  const name = (e) => {
    const labelled = by(e, "aria-labelledby");
    if (labelled.length) return labelled.map((l) => (l ? l.textContent : "")).join(" ").trim();
    if (e.getAttribute("aria-label")) return e.getAttribute("aria-label").trim();
    if (e.labels && e.labels.length) return Array.from(e.labels).map((l) => l.textContent).join(" ").trim();
    if (e.tagName === "IMG") return (e.getAttribute("alt") || "").trim();
    return (e.textContent || e.title || "").trim();
  };
  if (!document.documentElement.lang) found.push("html-has-lang");
  if (!document.title) found.push("document-title");
  if (all("main").length !== 1) found.push("landmark-one-main");
  if (all("h1").length !== 1) found.push("page-has-heading-one");
  if (/user-scalable\s*=\s*no|maximum-scale/.test((document.querySelector("meta[name=viewport]") || {}).content)) found.push("meta-viewport");
  const ids = all("[id]").map((e) => e.id).filter((i) => i);
  ids.filter((i, k) => ids.indexOf(i) !== k).forEach((i) => { if (!document.getElementById(i).closest("svg")) found.push("duplicate-id: " + i); });
  all("[aria-labelledby], [aria-describedby]").forEach((e) => [...by(e, "aria-labelledby"), ...by(e, "aria-describedby")].forEach((t) => { if (!t) say("aria-valid-attr-value", e); }));
  all("img, [role=img]").forEach((e) => { if (!name(e) && !e.closest("[aria-hidden=true]")) say("image-alt", e); });
  all("input, select, textarea, button, a[href], summary, canvas[tabindex], [role=region], [role=group], nav, [tabindex]").forEach((e) => { if (shown(e) && !name(e)) say("name", e); });
  all("canvas[tabindex], div[tabindex], span[tabindex]").forEach((e) => { if (!e.getAttribute("role")) say("focusable-without-role", e); });
  all("[tabindex]").forEach((e) => { if (+e.getAttribute("tabindex") > 0) say("tabindex", e); });
  let level = 0;
  all("h1, h2, h3, h4, h5, h6").filter(shown).forEach((h) => { const now = +h.tagName[1]; if (now > level + 1) say("heading-order", h, `h${level} then h${now}`); level = now; if (!h.textContent.trim()) say("empty-heading", h); });
  all("table").forEach((t) => { if (!t.querySelector("caption") || !t.querySelector("th[scope=col]")) say("table", t); });
  all("th").forEach((t) => { if (!t.getAttribute("scope")) say("th-scope", t); });
  all("ul, ol").forEach((l) => Array.from(l.children).forEach((c) => { if (c.tagName !== "LI") say("list", l); }));
  all("[aria-hidden=true]").forEach((e) => { if (e.matches("a, button, input, [tabindex]") || e.querySelector("a, button, input, [tabindex]")) say("aria-hidden-focus", e); });
  all("*").forEach((e) => {
    if (!(e instanceof HTMLElement) || !shown(e)) return;
    const s = getComputedStyle(e);
    if (/auto|scroll/.test(s.overflowX + s.overflowY) && (e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1) && e.tabIndex < 0 && e !== document.body && e !== document.documentElement)
      say("scrollable-region-focusable", e, e.className);
  });
  all("a[href^='#']").forEach((a) => { if (!document.getElementById(decodeURIComponent(a.getAttribute("href").slice(1)))) say("skip-link", a, a.getAttribute("href")); });
  const links = {};
  all("a[href]").forEach((a) => { const n = name(a); if (links[n] && links[n] !== a.getAttribute("href")) say("identical-links-same-purpose", a); links[n] = a.getAttribute("href"); });
  // contrast of text against the nearest opaque ground (WCAG 2.2, 1.4.3)
  const rgb = (c) => { const m = c.match(/[\d.]+/g).map(Number); return [m[0], m[1], m[2], m.length > 3 ? m[3] : 1]; };
  const light = (c) => { const v = c.slice(0, 3).map((x) => (x /= 255) <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4); return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] > 0.8) return c; } return [255, 255, 255, 1]; };
  all("body *").forEach((e) => {
    if (!(e instanceof HTMLElement) || !shown(e) || e.matches("option, script, style") || e.closest("svg")) return;
    if (!Array.from(e.childNodes).some((n) => n.nodeType === 3 && n.textContent.trim())) return;
    const s = getComputedStyle(e), a = light(rgb(s.color)), b = light(ground(e)), ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(s.fontSize), large = size >= 24 || (size >= 18.66 && +s.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) say("color-contrast", e, `${ratio.toFixed(2)} of ${s.color}`);
  });
  all("button, select, input, nav a, summary").filter(shown).forEach((e) => { const r = e.getBoundingClientRect(); if (r.height < 24 && !(e.type === "checkbox")) say("target-size", e, `${r.width.toFixed(0)} x ${r.height.toFixed(0)}`); });
  return found;
})()
