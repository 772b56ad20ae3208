// How numbers, sizes and spans of time are written, on all pages alike; pure.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** 1,234,567; a dash where there is no number. */
export function count(n) {
  return Number.isFinite(n) ? whole.format(n) : "–";
}

/** "1 task", "1,234 tasks". */
export function many(n, word) {
  return `${count(n)} ${word}${n === 1 ? "" : "s"}`;
}

/** 512 B, 3.4 KB, 12.0 GB: units of 1024. */
export function bytes(n) {
  if (!Number.isFinite(n)) return "–";
  const units = ["B", "KB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  while (Math.abs(n) >= 1024 && unit < units.length - 1) {
    n /= 1024;
    unit += 1;
  }
  return unit === 0 ? `${whole.format(n)} B` : `${n.toFixed(n < 100 ? 1 : 0)} ${units[unit]}`;
}

/** 4.2 s, 3 min 5 s, 2 h 3 min, 1 d 4 h. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 59.95) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(Math.min(seconds, 59))} s`;
  const total = Math.round(seconds);
  const [d, hr, min, s] = [
    Math.floor(total / 86400), Math.floor(total / 3600) % 24, Math.floor(total / 60) % 60, total % 60,
  ];
  if (d > 0) return `${d} d ${hr} h`;
  if (hr > 0) return `${hr} h ${min} min`;
  return `${min} min ${s} s`;
}

/** 3.4 MB/s. */
export function byteRate(n) {
  return Number.isFinite(n) ? `${bytes(n)}/s` : "–";
}

/** "3 min ago", for a moment in the past. */
export function ago(rfc3339) {
  const seconds = (Date.now() - Date.parse(rfc3339)) / 1000;
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 5) return "just now";
  const [size, name] = seconds < 60 ? [1, "s"]
    : seconds < 3600 ? [60, "min"]
      : seconds < 172800 ? [3600, "h"] : [86400, "d"];
  return `${Math.floor(seconds / size)} ${name} ago`;
}
