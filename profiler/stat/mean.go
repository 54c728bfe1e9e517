package stat

import "math"

// MeanCI95 returns the mean of values and its 95 % interval by Student's t.
// The interval is nil below 2 values, and (0, 0) without any.
func MeanCI95(values []int64) (mean float64, ci95 *[2]float64) {
	n := float64(len(values))
	if n == 0 {
		return 0, nil
	}
	// Around the first value, so that squares of clock-sized numbers keep
	// their last digits.
	var sum, squares float64
	for _, v := range values {
		d := float64(v - values[0])
		sum += d
		squares += d * d
	}
	mean = float64(values[0]) + sum/n
	if n < 2 {
		return mean, nil
	}
	variance := max(0, (squares-sum*sum/n)/(n-1))
	half := studentQuantile(0.975, n-1) * math.Sqrt(variance/n)
	return mean, &[2]float64{mean - half, mean + half}
}

// studentQuantile inverts Student's distribution for 0.5 < p < 1.
func studentQuantile(p, degrees float64) float64 {
	lo, hi := 0.0, 1.0
	for studentCDF(hi, degrees) < p {
		hi *= 2
	}
	for range 200 {
		mid := (lo + hi) / 2
		if mid == lo || mid == hi {
			break
		}
		if studentCDF(mid, degrees) < p {
			lo = mid
		} else {
			hi = mid
		}
	}
	return (lo + hi) / 2
}

// studentCDF is Student's distribution for t >= 0.
func studentCDF(t, degrees float64) float64 {
	return 1 - incompleteBeta(degrees/2, 0.5, degrees/(degrees+t*t))/2
}

// incompleteBeta is the regularised I_x(a, b), by its continued fraction
// (NIST Digital Library of Mathematical Functions, 8.17.22) evaluated with
// Lentz's method.
func incompleteBeta(a, b, x float64) float64 {
	if x <= 0 {
		return 0
	}
	if x >= 1 {
		return 1
	}
	if x > (a+1)/(a+b+2) { // the fraction converges fast on the other side
		return 1 - incompleteBeta(b, a, 1-x)
	}
	la, _ := math.Lgamma(a)
	lb, _ := math.Lgamma(b)
	lab, _ := math.Lgamma(a + b)
	front := math.Exp(lab-la-lb+a*math.Log(x)+b*math.Log1p(-x)) / a

	const tiny = 1e-300
	away := func(v float64) float64 {
		if math.Abs(v) < tiny {
			return tiny
		}
		return v
	}
	c, d := 1.0, 1/away(1-(a+b)*x/(a+1))
	f := d
	for m := 1.0; m <= 300; m++ {
		even := m * (b - m) * x / ((a + 2*m - 1) * (a + 2*m))
		d = 1 / away(1+even*d)
		c = away(1 + even/c)
		f *= c * d
		odd := -(a + m) * (a + b + m) * x / ((a + 2*m) * (a + 2*m + 1))
		d = 1 / away(1+odd*d)
		c = away(1 + odd/c)
		step := c * d
		f *= step
		if math.Abs(step-1) < 1e-15 {
			break
		}
	}
	return front * f
}
