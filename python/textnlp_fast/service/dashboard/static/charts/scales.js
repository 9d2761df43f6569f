// From values to places, and the values worth a line: round numbers, round sizes, round times.

/** A straight scale from [low, high] to [start, end]. */
export function linear(low, high, start, end) {
  const span = high - low || 1;
  const scale = (value) => start + ((value - low) / span) * (end - start);
  scale.back = (place) => low + ((place - start) / (end - start || 1)) * span;
  return scale;
}

/** Round numbers from 0 or below `low` to `high`: about `about` of them. Steps are 1, 2 or 5 times a power of ten. */
export function ticks(low, high, about = 5) {
  if (!(high > low)) return [low];
  const step = stepOf((high - low) / about);
  const found = [];
  for (let count = Math.ceil(low / step - 1e-9); count * step <= high + step * 1e-9; count += 1) {
    found.push(Number((count * step).toPrecision(12)));
  }
  return found;
}

function stepOf(raw) {
  const power = 10 ** Math.floor(Math.log10(raw));
  const part = raw / power;
  return power * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10);
}

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const STEPS = [1, 5, 15, 30].map((each) => each * SECOND).concat(
  [1, 5, 15, 30].map((each) => each * MINUTE),
  [1, 3, 6, 12].map((each) => each * HOUR),
  [1, 2, 7, 14, 30, 90, 180, 365].map((each) => each * DAY),
);

/** Round moments (ms) between two, in the reader's time zone, with how to write them: [[ms, words]]. */
export function timeTicks(low, high, about = 6) {
  const span = high - low;
  const step = STEPS.find((each) => span / each <= about) ?? 365 * DAY * Math.ceil(span / about / (365 * DAY));
  const offset = new Date(low).getTimezoneOffset() * MINUTE;
  const found = [];
  for (let at = Math.ceil((low - offset) / step) * step + offset; at <= high; at += step) found.push([at, written(at, step)]);
  return found;
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

function written(ms, step) {
  const date = new Date(ms);
  const two = (value) => String(value).padStart(2, "0");
  if (step >= 90 * DAY) return `${MONTHS[date.getMonth()]} ${date.getFullYear()}`;
  const day = `${date.getDate()} ${MONTHS[date.getMonth()]}`;
  if (step >= DAY) return day;
  const time = `${two(date.getHours())}:${two(date.getMinutes())}`;
  if (step < MINUTE) return `${time}:${two(date.getSeconds())}`;
  return date.getHours() === 0 && date.getMinutes() === 0 && step >= HOUR ? day : time;
}

/** At most `most` of the points: of each stretch the lowest and the highest by `value`, so that no peak is lost. */
export function thinned(points, value, most = 800) {
  if (points.length <= most) return points;
  const kept = [points[0]];
  const size = points.length / (most / 2);
  for (let start = 0; start < points.length; start += size) {
    const part = points.slice(Math.floor(start), Math.max(Math.floor(start) + 1, Math.floor(start + size)));
    let low = 0;
    let high = 0;
    part.forEach((each, place) => {
      if (value(each) < value(part[low])) low = place;
      if (value(each) > value(part[high])) high = place;
    });
    kept.push(...(low < high ? [part[low], part[high]] : low > high ? [part[high], part[low]] : [part[low]]));
  }
  kept.push(points.at(-1));
  return kept;
}
