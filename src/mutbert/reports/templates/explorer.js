"use strict";
(async () => {
const $ = (id) => document.getElementById(id);
const nonce = document.currentScript.nonce, data = JSON.parse($("data").textContent);
const BASES = [..."ACGT"], COLOUR = {A: "#009e73", C: "#0072b2", G: "#e69f00", T: "#d55e00", N: "#8a94a0"};
const LOW = "#d55e00", HIGH = "#0072b2", NONE = "#8a94a0", LOGO_BASES = 120, ROWS = 25, AROUND = innerWidth < 640 ? 12 : 30, LABEL = 26;
const escaped = (text) => String(text).replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);
const make = (tag, properties, ...children) => { const made = Object.assign(document.createElement(tag), properties); made.append(...children); return made; };
const number = (value) => Number.isNaN(value) ? "–" : Number.isInteger(value) ? value.toLocaleString("en") : String(+value.toPrecision(4));

// Data are arrays in little-endian order, or text, compressed by gzip and in base64.
async function unpack(text, Kind) {
  const bytes = Uint8Array.fromBase64?.(text) || Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer();
  return Kind ? new Kind(buffer) : new TextDecoder().decode(buffer);
}

// −Σ p ln p, in nats; a model's −ln p are whole numbers of a unit, of which few differ.
const entropy = (shares) => shares.reduce((sum, share) => share > 0 ? sum - share * Math.log(share) : sum, 0);

const CHANCE = Float64Array.from({length: data.missing}, (_, cost) => Math.exp(-data.unit * cost)), PART = CHANCE.map((chance, cost) => chance * data.unit * cost);

async function openRegion(region) {
  const [sequence, position, frequency, minusLog] = await Promise.all([
    unpack(region.sequence), unpack(region.position, Uint32Array), unpack(region.frequency, Uint16Array),
    region.probability && unpack(region.probability, Uint16Array)]);
  const shares = (row) => [...frequency.subarray(4 * row, 4 * row + 4)].map((one) => one / data.frequency_one);
  const rowAt = (at) => { const row = firstAtLeast(position, at); return position[row] === at ? row : -1; };
  Object.assign(region, {
    sequence, length: sequence.length, position, shares, entropies: Float32Array.from(position, (_, row) => entropy(shares(row))),
    population: (at) => rowAt(at) < 0 ? data.codes[sequence[at]] : shares(rowAt(at)),
    model: (at) => minusLog && minusLog[4 * at] !== data.missing ? BASES.map((_, base) => CHANCE[minusLog[4 * at + base]]) : null,
  });
  if (!minusLog) return;
  region.modelEntropy = new Float32Array(region.length).fill(NaN);
  region.ratio = new Float32Array(region.length).fill(NaN);
  for (let at = 0; at < region.length; at++) {
    if (minusLog[4 * at] === data.missing) continue;
    const reference = BASES.indexOf(sequence[at]), costs = minusLog.subarray(4 * at, 4 * at + 4);
    region.modelEntropy[at] = PART[costs[0]] + PART[costs[1]] + PART[costs[2]] + PART[costs[3]];
    if (reference < 0) continue;
    let best = data.missing;
    for (let base = 0; base < 4; base++) if (base !== reference && costs[base] < best) best = costs[base];
    region.ratio[at] = data.unit * (costs[reference] - best);
  }
}

function firstAtLeast(values, value, low = 0, high = values.length) {
  while (low < high) { const middle = (low + high) >> 1; if (values[middle] < value) low = middle + 1; else high = middle; }
  return low;
}

async function openVariants(found) {
  const [region, position, ...arrays] = await Promise.all([unpack(found.region, Uint32Array), unpack(found.position, Uint32Array),
    ...found.scores.map(([, packed]) => unpack(packed, Float32Array))]);
  const [ID, ref, alt, why] = await Promise.all(["ID", "ref", "alt", "why"].map(async (name) => (await unpack(found[name])).split("\n").slice(0, found.count)));
  const columns = found.scores.map(([name]) => name), scores = Object.fromEntries(columns.map((name, at) => [name, arrays[at]]));
  // SNVs and other alleles have their scores in columns of their own: of each the first that it has.
  const main = Float32Array.from(position, (_, at) => (arrays.find((one) => !Number.isNaN(one[at])) || [])[at]);
  return {count: found.count, region, position, ID, ref, alt, why, scores, columns, main};
}

try {
const [code] = await Promise.all([unpack($("igv").textContent), ...data.regions.map(openRegion)]);
document.head.append(make("script", {nonce, textContent: code}));
const regions = data.regions, variants = data.variants && await openVariants(data.variants);
const regionAt = (name, position) => regions.find((one) => one.name === name && one.start <= position && position < one.end);
let selected = -1;
const locusOf = (region) => `${region.name}:${region.start + 1}-${region.end}`;

// What a track draws: below its label, for each region on the contig that is shown.
const drawing = (draw) => function ({context, bpStart, bpPerPixel, pixelWidth, pixelHeight, referenceFrame}) {
  const frame = referenceFrame || igvBrowser.referenceFrameList[0], end = bpStart + pixelWidth * bpPerPixel, height = pixelHeight - LABEL;
  context.save();
  context.translate(0, LABEL);
  for (const region of regions.filter((one) => one.name === frame.chr && one.start < end && bpStart < one.end)) {
    draw({context, height, region, frame, bpPerPixel, x: (at) => (region.start + at - bpStart) / bpPerPixel,
      first: Math.max(0, Math.floor(bpStart - region.start)), last: Math.min(region.length, Math.ceil(end - region.start)), range: this.dataRange});
  }
  context.restore();
};

// Bars at the positions that vary: one on the other, and as wide as a base or a pixel.
const drawVarying = (sharesOf, colours) => drawing(({context, height, region, bpPerPixel, x, first, last, range}) => {
  for (let row = firstAtLeast(region.position, first); region.position[row] < last; row++) {
    let y = height;
    sharesOf(region, row).forEach((share, at) => {
      if (!share) return;
      context.fillStyle = colours[at];
      context.fillRect(x(region.position[row]), y -= share / range.max * height, Math.max(1, 1 / bpPerPixel), share / range.max * height);
    });
  }
});
const alternates = (region, row) => region.shares(row).map((share, base) => BASES[base] === region.sequence[region.position[row]] ? 0 : share);

// The mean of each pixel's bases.
const drawMeans = (name) => drawing(({context, height, region, bpPerPixel, x, first, last, range}) => {
  const values = region[name], step = Math.max(1, bpPerPixel), zero = height * range.max / (range.max - range.min);
  for (let from = Math.floor(first / step) * step; from < last; from += step) {
    let sum = 0, count = 0;
    for (let at = Math.max(0, Math.round(from)); at < Math.min(Math.round(from + step), region.length); at++) if (!Number.isNaN(values[at])) { sum += values[at]; count++; }
    const left = Math.round(x(from)), size = Math.min(1, Math.abs(sum / count / range.max)) * zero;
    context.fillStyle = sum < 0 ? LOW : HIGH;
    if (count) context.fillRect(left, sum < 0 ? zero : zero - size, Math.max(1, Math.round(x(from + step)) - left), size);
  }
});

// Letters fill their boxes; the likeliest is on top.
const drawLogo = (distribution) => drawing(({context, height, region, frame, bpPerPixel, x, first, last}) => {
  context.textAlign = "left";
  if (frame.end - frame.start > LOGO_BASES + 1) {
    context.font = "12px system-ui, sans-serif";
    context.fillStyle = "#51606f";
    context.fillText(`zoom in to ${LOGO_BASES} bases or fewer`, Math.max(x(0), x(frame.start - region.start)) + 8, height / 2);
    return;
  }
  context.font = "bold 100px Arial, Helvetica, sans-serif";
  for (let at = first; at < last; at++) {
    const shares = distribution(region, at);
    if (!shares) continue;
    const scale = $("logo").value === "bits" ? 1 - entropy(shares) / Math.log(4) : 1;
    let y = height;
    for (const base of [0, 1, 2, 3].sort((one, other) => shares[one] - shares[other])) {
      const tall = shares[base] * scale * height, box = context.measureText(BASES[base]);
      if (tall < 0.3) continue;
      context.save();
      context.translate(x(at + 0.04), y);
      context.scale(0.92 / bpPerPixel / (box.actualBoundingBoxLeft + box.actualBoundingBoxRight), tall / (box.actualBoundingBoxAscent + box.actualBoundingBoxDescent));
      context.fillStyle = COLOUR[BASES[base]];
      context.fillText(BASES[base], box.actualBoundingBoxLeft, -box.actualBoundingBoxDescent);
      context.restore();
      y -= tall;
    }
  }
});

const greatest = (values) => values.reduce((most, one) => Math.max(most, Math.abs(one) || 0), 0), strongest = variants && greatest(variants.main) || 1;
const colourOf = (index) => index === selected ? "#000000" : Number.isNaN(variants.main[index]) ? NONE : variants.main[index] < 0 ? LOW : HIGH;
const features = variants ? Array.from(variants.position, (position, index) => ({
  chr: regions[variants.region[index]].name, start: position, end: position + variants.ref[index].length, index,
  name: `${variants.ref[index]}>${variants.alt[index]}`.slice(0, 24), value: variants.main[index]})) : [];
const drawPoints = drawing(({context, height, region, x, range}) => {
  const y = (value) => height * (range.max - value) / (range.max - range.min);
  context.fillStyle = "#d8dee6";
  context.fillRect(x(0), y(0), x(region.length) - x(0), 1);
  for (const {index, start, value} of features) {
    if (regions[variants.region[index]] !== region || Number.isNaN(value)) continue;
    context.fillStyle = colourOf(index);
    context.fillRect(x(start - region.start + 0.5) - 2.5, y(value) - 2.5, 5, 5);
  }
});
const hasModel = Boolean(regions[0].ratio), most = hasModel && Math.ceil(Math.max(1, ...regions.map((one) => greatest(one.ratio))));
const wig = {type: "wig", supportsWholeGenome: false, autoscale: false, min: 0, max: 1, height: 50 + LABEL};
const drawn = (name, draws, more = {}) => ({...wig, name, draws, ...more, featureSource: {getFeatures: async ({chr, start, end}) => [{chr, start, end, value: 1}]}});
const feature = {type: "annotation", supportsWholeGenome: false, margin: LABEL};
const tracks = [
  drawn("Allele frequencies", drawVarying(alternates, BASES.map((base) => COLOUR[base]))), drawn("Population logo", drawLogo((region, at) => region.population(at))),
  drawn("Population entropy", drawVarying((region, row) => [region.entropies[row]], [COLOUR.A]), {max: 1.4, height: 40 + LABEL}),
  ...(hasModel ? [drawn("Model logo", drawLogo((region, at) => region.model(at))), drawn("Model entropy", drawMeans("modelEntropy"), {max: 1.4, height: 40 + LABEL}),
    drawn("Model: best alternate LLR", drawMeans("ratio"), {min: -most, max: most})] : []),
  ...(variants ? [
    drawn(`Variants by ${variants.columns[0] || "score"}`, drawPoints, {min: variants.main.some((one) => one < 0) ? -1.05 * strongest : 0, max: 1.05 * strongest, points: true, height: 70 + LABEL}),
    {...feature, name: "Scored variants", displayMode: "COLLAPSED", height: 32 + LABEL, features, color: (one) => colourOf(one.index)}] : []),
  ...(data.annotation ? [{...feature, format: data.annotation.format, name: "Genes", nameField: data.annotation.name, height: 70 + LABEL, color: "#1c2430",
    url: `data:application/gzip;base64,${data.annotation.text}`}] : []),
];

$("browser").replaceChildren();
var igvBrowser = await igv.createBrowser($("browser"), {
  reference: {id: "region", name: data.genome.replace(/[<>&"']/g, "_"), wholeGenomeView: false,
    fastaURL: `data:text/plain;base64,${btoa(regions.map((one) => `>${one.name}:${one.start + 1}-${one.end} @len=${one.end}\n${one.sequence}\n`).join(""))}`},
  locus: locusOf(regions[0]), loadDefaultGenomes: false, search: false, showIdeogram: false, minimumBases: 20, nucleotideColors: COLOUR,
  showMultiSelectButton: false, showROITableButton: false, showCursorTrackingGuideButton: false, showTrackLabelButton: false,
});
window.explorer = igvBrowser;
// A narrow window has no room for what the buttons above do as well.
$("browser").shadowRoot.append(make("style", {textContent: "@media (max-width: 40rem) { .igv-navbar-right-container, .igv-windowsize-panel-container { display: none !important; } }"}));
for (const {draws, ...config} of tracks) {
  const track = await igvBrowser.loadTrack(config);
  if (!draws) continue;
  const axis = track._paintAxis;
  track.draw = draws;
  track._paintAxis = (context, width, height) => { context.save(); context.translate(0, LABEL); axis(context, width, height - LABEL); context.restore(); };
  track.popupData = () => [];
  track.trackView.repaintViews();
  track.trackView.paintAxis();
}

// What a click shows.
const percent = (shares) => BASES.map((base, at) => `${base} ${number(+(100 * shares[at]).toPrecision(3))} %`).join(", ");
const placeOf = (index) => `${regions[variants.region[index]].contig}:${variants.position[index] + 1}`;
const factsOf = (index) => [["position", placeOf(index)], ["ID", variants.ID[index]], ["alleles", `${variants.ref[index]} > ${variants.alt[index]}`],
  ...variants.columns.map((name) => [name.endsWith("_PCT") ? `${name} (% of the background that is less extreme)` : name, number(variants.scores[name][index])]),
  ...(variants.why[index] ? [["no score", variants.why[index].replaceAll("_", " ")]] : [])];
function factsAt(region, at) {
  const shares = region.population(at), model = region.model(at);
  return [["position", `${region.contig}:${region.start + at + 1}`], ["reference", region.sequence[at]], ["population", percent(shares)], ["entropy", number(entropy(shares))],
    ...(model ? [["model", percent(model)], ["model's entropy", number(region.modelEntropy[at])], ["best alternate LLR", number(region.ratio[at])]] : [])];
}
const popup = (facts) => [...facts].map(([name, value]) => `<div><span>${escaped(name)}</span>&nbsp;&nbsp;${escaped(value)}</div>`).join("");
igvBrowser.on("trackclick", (track, list, location) => {
  const frame = igvBrowser.referenceFrameList[0], region = regionAt(frame.chr, Math.floor(location));
  if (track.name === "Genes") return list?.length ? popup(new Map(list.filter((one) => one.name).map((one) => [one.name, one.value]).reverse())) : false;
  if (!region) return false;
  if (track.type !== "annotation" && !track.config.points) return popup(factsAt(region, Math.floor(location) - region.start));
  const distance = (one) => Math.max(one.start - location, location - one.end, 0);
  const near = features.filter((one) => one.chr === frame.chr && distance(one) <= 4 * frame.bpPerPixel).sort((one, other) => distance(one) - distance(other));
  if (!near.length) return false;
  const more = near.length > 3 ? `<hr><div>${near.length - 3} more here: zoom in</div>` : "";
  return near.slice(0, 3).map((one) => popup(factsOf(one.index))).join("<hr>") + more;
});

// The buttons, and the table.
$("regions").replaceChildren(...regions.map((one) => new Option(`${one.contig}:${one.start + 1}-${one.end}`)));
$("regions").parentNode.hidden = regions.length < 2;
$("regions").onchange = $("whole").onclick = () => igvBrowser.search(locusOf(regions[$("regions").selectedIndex]));
$("in").onclick = () => igvBrowser.zoomIn();
$("out").onclick = () => igvBrowser.zoomOut();
const around = (name, at) => igvBrowser.search(`${name}:${Math.max(1, at + 1 - AROUND)}-${at + 1 + AROUND}`);
$("bases").onclick = () => { const frame = igvBrowser.referenceFrameList[0]; return around(frame.chr, Math.floor((frame.start + frame.end) / 2)); };
$("logo").onchange = () => igvBrowser.trackViews.filter((view) => /logo$/.test(view.track.name || "")).forEach((view) => {
  view.track.dataRange.max = $("logo").value === "bits" ? 2 : 1;
  view.repaintViews();
  view.paintAxis();
});
if (variants) fillTable();

function fillTable() {
  const every = {Position: variants.position, ID: variants.ID, Ref: variants.ref, Alt: variants.alt, ...variants.scores, Reason: variants.why.map((one) => one.replaceAll("_", " "))};
  // Without columns in which there is nothing.
  const values = Object.fromEntries(Object.entries(every).filter(([, column]) => !Array.isArray(column) || column.some((one) => one && one !== ".")));
  const texts = Array.from(variants.ref, (ref, index) => `${placeOf(index)} ${variants.ID[index]} ${ref}>${variants.alt[index]} ${variants.why[index]}`.toLowerCase());
  let order = [], first = 0, sorted = "Position", sign = 1;
  const matches = (word) => {
    const compared = word.match(/^(\w+)(<=|>=|<|>|=)(-?[\d.]+(?:e-?\d+)?)$/), range = word.match(/^(?:(\S+):)?(\d+)-(\d+)$/);
    const name = compared && (compared[1] === "pos" ? "Position" : variants.columns.find((one) => one.toLowerCase() === compared[1]));
    if (range) return (at) => (!range[1] || regions[variants.region[at]].contig.toLowerCase() === range[1]) && variants.position[at] + 1 >= +range[2] && variants.position[at] < +range[3];
    if (!name) return (at) => texts[at].includes(word);
    const wanted = +compared[3] - (name === "Position"), column = values[name];
    return {"<": (at) => column[at] < wanted, ">": (at) => column[at] > wanted, "<=": (at) => column[at] <= wanted, ">=": (at) => column[at] >= wanted, "=": (at) => column[at] === wanted}[compared[2]];
  };
  function choose() {
    const tests = $("search").value.toLowerCase().split(/\s+/).filter(Boolean).map(matches), kind = $("shown").value;
    if (kind !== "all") tests.push((at) => (variants.why[at] === "") === (kind === "scored"));
    order = Array.from(variants.position.keys()).filter((at) => tests.every((test) => test(at)));
    const column = values[sorted], isText = Array.isArray(column);
    if (sorted !== "Position" || sign < 0) order.sort((one, other) => {
      if (isText) return sign * (column[one] < column[other] ? -1 : column[one] > column[other] ? 1 : 0);
      const [left, right] = [column[one], column[other]];
      return Number.isNaN(left) ? Number.isNaN(right) ? 0 : 1 : Number.isNaN(right) ? -1 : sign * (left - right);
    });
    first = 0;
    show();
  }
  const cell = (text, className = "") => make("td", {className, title: text.length > 20 ? text : ""}, text);
  const fixed = (value) => Number.isNaN(value) ? "–" : value.toFixed(3);
  function show() {
    $("rows").replaceChildren(...order.slice(first, first + ROWS).map((at) => make("tr", {className: at === selected ? "marked" : ""},
      make("td", {}, make("button", {type: "button", textContent: placeOf(at), onclick: () => go(at)})),
      ...Object.values(values).slice(1).map((column) => Array.isArray(column) ? cell(column[at], "text") : cell(fixed(column[at]))))));
    if (!order.length) $("rows").append(make("tr", {}, make("td", {className: "empty", colSpan: 99}, variants.count ? "No variant matches." : "The VCF has no variant here.")));
    $("page").textContent = order.length ? `${number(first + 1)}–${number(Math.min(first + ROWS, order.length))} of ${number(order.length)}` : "none";
    $("previous").disabled = first === 0;
    $("next").disabled = first + ROWS >= order.length;
    for (const one of $("head").children) one.ariaSort = one.textContent !== sorted ? "none" : sign > 0 ? "ascending" : "descending";
  }
  async function go(at) {
    selected = at;
    show();
    $("rows").querySelector(".marked button").focus({preventScroll: true});
    await around(regions[variants.region[at]].name, variants.position[at]);
    igvBrowser.trackViews.forEach((view) => /variants/i.test(view.track.name || "") && view.repaintViews());
    $("detail").replaceChildren(make("dl", {}, ...factsOf(at).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])));
    $("browser").scrollIntoView({block: "start", behavior: "smooth"});
  }
  $("head").replaceChildren(...Object.keys(values).map((name) => make("th", {scope: "col", className: Array.isArray(values[name]) ? "text" : ""},
    make("button", {type: "button", textContent: name, onclick: () => { sign = sorted === name ? -sign : 1; sorted = name; choose(); }}))));
  let waiting = 0;
  $("search").oninput = () => { clearTimeout(waiting); waiting = setTimeout(choose, 150); };
  $("shown").onchange = choose;
  $("previous").onclick = () => { first -= ROWS; show(); };
  $("next").onclick = () => { first += ROWS; show(); };
  $("table").hidden = false;
  choose();
}
} catch (error) {
  $("error").textContent = `This page cannot be shown: ${error.message || error}`;
  $("error").hidden = false;
  throw error;
}
document.documentElement.dataset.ready = Math.round(performance.now());
})();
