/* A walk says where every number of a large matrix stands in the file, without a list of places
 * (see walk.py): place = start + sum of index * stride, over the axes of `sizes`. */

export const placeAt = ({ start, sizes, strides }, position) => {
  let place = start, rest = position;
  for (let axis = sizes.length - 1; axis >= 0; axis -= 1) {
    place += (rest % sizes[axis]) * strides[axis];
    rest = Math.floor(rest / sizes[axis]);
  }
  return place;
};

/* The other way: the position of a place, -1 where the walk does not come by. */
export const positionAt = ({ start, sizes, strides }, place) => {
  let lowest = start;
  sizes.forEach((size, axis) => { if (strides[axis] < 0) lowest += (size - 1) * strides[axis]; });
  let rest = place - lowest;
  if (rest < 0) return -1;
  const index = sizes.map(() => 0);
  const outermost = sizes.map((_, axis) => axis).filter((axis) => sizes[axis] > 1)
    .sort((a, b) => Math.abs(strides[b]) - Math.abs(strides[a]));
  for (const axis of outermost) {
    const step = Math.abs(strides[axis]);
    const at = Math.floor(rest / step);
    if (at >= sizes[axis]) return -1;
    rest -= at * step;
    index[axis] = strides[axis] < 0 ? sizes[axis] - 1 - at : at;
  }
  return rest ? -1 : index.reduce((position, at, axis) => position * sizes[axis] + at, 0);
};
