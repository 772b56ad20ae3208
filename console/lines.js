// Finding a line by where lines start: shared by the editor (characters of a text) and the task map (tasks of a row).

/** The last line that starts at or before `place`; `starts` holds where each line starts, rising. */
export function lineAt(starts, place) {
  let low = 0;
  let high = starts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (starts[middle] <= place) low = middle;
    else high = middle - 1;
  }
  return low;
}
