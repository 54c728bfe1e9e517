package stat

// step is one jump of an empirical distribution, in counts: below values lie
// under x, upTo do not exceed it.
type step struct{ x, below, upTo float64 }

// dip returns Hartigan's dip of sorted values: the largest distance to the
// nearest unimodal distribution. It narrows the interval in which the mode of
// that distribution can lie, as the authors describe it: left of it the
// nearest distribution follows the greatest convex minorant, right of it the
// least concave majorant.
func dip(sorted []float64) float64 {
	steps := make([]step, 0, len(sorted))
	for i, v := range sorted {
		if k := len(steps) - 1; k >= 0 && steps[k].x == v {
			steps[k].upTo++
			continue
		}
		steps = append(steps, step{v, float64(i), float64(i + 1)})
	}
	if len(steps) < 2 {
		return 0
	}
	var (
		low, high          = 0, len(steps) - 1
		minorant, majorant = make([]int, 0, len(steps)), make([]int, 0, len(steps))
		widest             = 1.0 // twice the dip, in counts; a jump alone makes it 1
	)
	for {
		minorant = convexMinorant(minorant[:0], steps, low, high)
		majorant = concaveMajorant(majorant[:0], steps, low, high)
		gap, newLow, newHigh := widestGap(steps, minorant, majorant)
		if gap <= widest {
			break
		}
		for segment, i := 0, low; i <= newLow; i++ {
			segment = segmentOf(minorant, segment, i)
			widest = max(widest, steps[i].upTo-onMinorant(steps, minorant, segment, i))
		}
		for segment, i := 0, newHigh; i <= high; i++ {
			segment = segmentOf(majorant, segment, i)
			widest = max(widest, onMajorant(steps, majorant, segment, i)-steps[i].below)
		}
		if newLow == low && newHigh == high {
			break
		}
		low, high = newLow, newHigh
	}
	return widest / float64(2*len(sorted))
}

// convexMinorant appends the indices at which the greatest convex minorant of
// steps[low:high+1] touches it.
func convexMinorant(hull []int, steps []step, low, high int) []int {
	for i := low; i <= high; i++ {
		for len(hull) >= 2 {
			a, b, c := steps[hull[len(hull)-2]], steps[hull[len(hull)-1]], steps[i]
			if (b.below-a.below)*(c.x-b.x) < (c.below-b.below)*(b.x-a.x) {
				break
			}
			hull = hull[:len(hull)-1]
		}
		hull = append(hull, i)
	}
	return hull
}

// concaveMajorant is the same for the least concave majorant.
func concaveMajorant(hull []int, steps []step, low, high int) []int {
	for i := low; i <= high; i++ {
		for len(hull) >= 2 {
			a, b, c := steps[hull[len(hull)-2]], steps[hull[len(hull)-1]], steps[i]
			if (b.upTo-a.upTo)*(c.x-b.x) > (c.upTo-b.upTo)*(b.x-a.x) {
				break
			}
			hull = hull[:len(hull)-1]
		}
		hull = append(hull, i)
	}
	return hull
}

// segmentOf advances segment until hull[segment] <= i <= hull[segment+1].
func segmentOf(hull []int, segment, i int) int {
	for segment+2 < len(hull) && hull[segment+1] <= i {
		segment++
	}
	return segment
}

func onMinorant(steps []step, hull []int, segment, i int) float64 {
	if len(hull) == 1 {
		return steps[hull[0]].below
	}
	a, b := steps[hull[segment]], steps[hull[segment+1]]
	return a.below + (b.below-a.below)*(steps[i].x-a.x)/(b.x-a.x)
}

func onMajorant(steps []step, hull []int, segment, i int) float64 {
	if len(hull) == 1 {
		return steps[hull[0]].upTo
	}
	a, b := steps[hull[segment]], steps[hull[segment+1]]
	return a.upTo + (b.upTo-a.upTo)*(steps[i].x-a.x)/(b.x-a.x)
}

// widestGap finds where the two hulls lie farthest apart, and between which of
// their points the mode must then lie: low is one of the minorant, high one of
// the majorant.
func widestGap(steps []step, minorant, majorant []int) (gap float64, low, high int) {
	for k, segment := 0, 0; k < len(minorant); k++ {
		i := minorant[k]
		segment = segmentOf(majorant, segment, i)
		if d := onMajorant(steps, majorant, segment, i) - steps[i].below; d > gap {
			gap, low = d, i
			high = majorant[min(segment+1, len(majorant)-1)]
			if majorant[segment] == i {
				high = i
			}
		}
	}
	for k, segment := 0, 0; k < len(majorant); k++ {
		i := majorant[k]
		segment = segmentOf(minorant, segment, i)
		if d := steps[i].upTo - onMinorant(steps, minorant, segment, i); d >= gap {
			gap, high = d, i
			low = minorant[segment]
			if next := min(segment+1, len(minorant)-1); minorant[next] == i {
				low = i
			}
		}
	}
	return gap, low, high
}
