package analysis

import "github.com/initprof/initprof/profiler/stat"

// WhatIfSchema is the value of WhatIf.Schema.
const WhatIfSchema = "initprof/whatif/v1"

// WhatIf predicts INIT without some of its work, from the cold starts recorded.
type WhatIf struct {
	Schema    string  `json:"schema"`
	Without   string  `json:"without"`
	Wall      Summary `json:"wall"`      // traced, as it was
	Predicted Summary `json:"predicted"` // as it would have been
	Saved     Summary `json:"saved"`     // their difference, cold start by cold start
	// SavedMeanCI95 is of the mean of what is saved; absent of one cold start.
	SavedMeanCI95 *[2]int64 `json:"saved_mean_ci95,omitzero"`
	Work          Summary   `json:"work"` // that was left out, on all threads, whether it delayed INIT or not
}

// NewWhatIf summarizes the predictions, all slices by cold start and not empty.
func NewWhatIf(without string, walls, predicted, work []int64) *WhatIf {
	saved := make([]int64, len(walls))
	for i := range walls {
		saved[i] = walls[i] - predicted[i]
	}
	w := &WhatIf{
		Schema: WhatIfSchema, Without: without, Wall: stat.Summarize(walls), Predicted: stat.Summarize(predicted),
		Saved: stat.Summarize(saved), Work: stat.Summarize(work),
	}
	if _, ci := stat.MeanCI95(saved); ci != nil {
		w.SavedMeanCI95 = &[2]int64{int64(ci[0]), int64(ci[1])}
	}
	return w
}
