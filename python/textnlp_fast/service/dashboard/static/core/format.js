// Numbers, sizes and times as people read them. Sizes are decimal (1 kB = 1000 bytes), as on the command line.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
const NOTHING = "–";

export function bytes(count) {
  if (!isNumber(count)) return NOTHING;
  let value = Math.abs(count);
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${count < 0 ? "−" : ""}${value.toFixed(digits)} ${UNITS[unit]}`;
}

export function number(value, digits = 0) {
  if (!isNumber(value)) return NOTHING;
  return value.toLocaleString("en-GB", { maximumFractionDigits: digits, minimumFractionDigits: 0 });
}

/** 3 digits that count: 0.0123, 1.23, 123. */
export function figure(value) {
  if (!isNumber(value)) return NOTHING;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e7) return value.toExponential(2);
  return Number(value.toPrecision(3)).toLocaleString("en-GB", { maximumFractionDigits: 6 });
}

export function percent(fraction) {
  if (!isNumber(fraction)) return NOTHING;
  const value = fraction * 100;
  if (value > 0 && value < 0.01) return "< 0.01 %";
  return `${Number(value.toFixed(Math.abs(value) >= 99.95 ? 1 : Math.abs(value) >= 10 ? 1 : 2))} %`;
}

export function ratio(whole, part) {
  if (!isNumber(whole) || !isNumber(part) || part <= 0) return NOTHING;
  const value = whole / part;
  return `${value >= 99.95 ? value.toFixed(0) : value.toFixed(1)}×`;
}

export function dollars(value, digits = 2) {
  if (!isNumber(value)) return NOTHING;
  const size = Math.abs(value).toLocaleString("en-GB", {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
  return `${value < 0 ? "−" : ""}$${size}`;
}

export function duration(seconds) {
  if (!isNumber(seconds)) return NOTHING;
  const whole = Math.max(0, Math.round(seconds));
  if (seconds < 10) return `${Number(Math.max(0, seconds).toFixed(1))} s`;
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

/** The same for axes, whose numbers are round: 40 GB. */
export function roundBytes(count) {
  return bytes(count).replace(/(\.\d*?)0+ /, "$1 ").replace(". ", " ");
}

/** `2025-03-01 14:05`, in the reader's time zone. */
export function moment(text, withSeconds = false) {
  const date = asDate(text);
  if (!date) return NOTHING;
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  const time = `${two(date.getHours())}:${two(date.getMinutes())}`;
  return withSeconds ? `${day} ${time}:${two(date.getSeconds())}` : `${day} ${time}`;
}

/** `3 min ago`. */
export function ago(text, now = Date.now()) {
  const date = asDate(text);
  if (!date) return NOTHING;
  const seconds = (now - date.getTime()) / 1000;
  if (seconds < -5) return `in ${roughly(-seconds)}`;
  return seconds < 5 ? "just now" : `${roughly(seconds)} ago`;
}

function roughly(seconds) {
  const steps = [
    [86400 * 365, "y"],
    [86400 * 30, "mo"],
    [86400, "d"],
    [3600, "h"],
    [60, "min"],
  ];
  for (const [size, unit] of steps) if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  return `${Math.floor(seconds)} s`;
}

export function asDate(text) {
  if (text === null || text === undefined || text === "") return null;
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? null : date;
}

export function shape(sides) {
  return Array.isArray(sides) ? (sides.length ? sides.join(" × ") : "scalar") : NOTHING;
}

/** `1 version`, `2 versions`. */
export function count(value, one, many = `${one}s`) {
  return `${number(value)} ${value === 1 ? one : many}`;
}

function two(value) {
  return String(value).padStart(2, "0");
}

function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}
