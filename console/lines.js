// Finding a line by where lines start: shared by the editor (characters of a text), the task map (tasks of a row) and the
// chart (moments of its samples).

/** The last line that starts at or before `place`, the first if none does; `startOf` each rises from line to line. */
export function lineAt(lines, place, startOf = (start) => start) {
  let low = 0;
  let high = lines.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (startOf(lines[middle]) <= place) low = middle;
    else high = middle - 1;
  }
  return low;
}
