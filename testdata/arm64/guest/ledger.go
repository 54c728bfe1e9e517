package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
)

// ledgerReport is what is asserted of one cold start's account; declared anew,
// like report.
type ledgerReport struct {
	Runs []struct {
		WallNS int64 `json:"wall_ns"`
	}
	Ledger struct {
		WallNS         int64 `json:"wall_ns"`
		UnattributedNS int64 `json:"unattributed_ns"`
		UnknownWakerNS int64 `json:"unknown_waker_ns"`
		Cells          []struct {
			Phase, Category, State string
			NS                     int64
		}
	}
	CriticalPath []struct {
		StartNS  int64 `json:"start_ns"`
		NS       int64
		Phase    string
		WaitsFor string `json:"waits_for"`
	} `json:"critical_path"`
}

// checkLedger checks that each cold start's path leads from exec to /next
// without a gap, over the answer to register where that is slow, and that its
// cells sum to the whole.
func checkLedger(run string, colds []int, slow bool) error {
	for _, k := range colds {
		out, err := exec.Command("/bin/initprof", "report", run, "--run", strconv.Itoa(k), "--format", "json").Output()
		if err != nil {
			return fmt.Errorf("report --run %d: %w", k, err)
		}
		var r ledgerReport
		if err := json.Unmarshal(out, &r); err != nil {
			return fmt.Errorf("report --run %d: %w", k, err)
		}
		if len(r.Runs) != 1 || len(r.CriticalPath) == 0 {
			return fmt.Errorf("cold start %d: %d runs, %d steps on the critical path", k, len(r.Runs), len(r.CriticalPath))
		}
		wall := r.Runs[0].WallNS
		var cells, at int64
		for _, c := range r.Ledger.Cells {
			if c.NS <= 0 || c.Phase == "" || c.Category == "" || c.State == "" {
				return fmt.Errorf("cold start %d: cell %+v", k, c)
			}
			cells += c.NS
		}
		waits := map[string]int64{}
		for _, s := range r.CriticalPath {
			if s.StartNS != at {
				return fmt.Errorf("cold start %d: a step begins at %d where the one before it ends at %d", k, s.StartNS, at)
			}
			at += s.NS
			waits[s.WaitsFor] += s.NS
		}
		if cells != wall || at != wall || r.Ledger.WallNS != wall || r.Ledger.UnattributedNS != 0 {
			return fmt.Errorf("cold start %d: of %d ns the cells have %d, the path %d, the ledger %d; the chain is lost for %d",
				k, wall, cells, at, r.Ledger.WallNS, r.Ledger.UnattributedNS)
		}
		if first, last := r.CriticalPath[0].Phase, r.CriticalPath[len(r.CriticalPath)-1].Phase; first != "exec" || last != "next" {
			return fmt.Errorf("cold start %d: the path leads from %s to %s", k, first, last)
		}
		if want := "request POST /2020-01-01/extension/register"; slow && waits[want] < 50e6 {
			return fmt.Errorf("cold start %d: the answer took 100 ms, of which %d ns are on the path, that waits for %v", k, waits[want], waits)
		}
		fmt.Printf("ledger of cold start %d: %d cells, %d steps, %d of %d ns without a known waker\n",
			k, len(r.Ledger.Cells), len(r.CriticalPath), r.Ledger.UnknownWakerNS, wall)
	}
	return nil
}
