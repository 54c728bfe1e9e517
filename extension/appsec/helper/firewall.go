package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	libddwaf "github.com/DataDog/go-libddwaf/v4"
	"github.com/DataDog/go-libddwaf/v4/timer"
	"github.com/DataDog/go-libddwaf/v4/waferrors"
)

// Datadog's default obfuscation of what looks like a secret in an event.
const (
	secretKeys   = `(?i)pass|pw(?:or)?d|secret|(?:api|private|public|access)[_-]?key|token|consumer[_-]?(?:id|key|secret)|sign(?:ed|ature)|bearer|authorization|jsessionid|phpsessid|asp\.net[_-]sessionid|sid|jwt`
	secretValues = `(?i)(?:bearer\s+[a-z0-9._\-]+|gh[opsu]_[0-9a-zA-Z]{36}|ey[I-L][\w=-]+\.ey[I-L][\w=-]+)`
)

const (
	maxOpen     = 8        // invocations whose answer is awaited
	maxTriggers = 48 << 10 // bytes of _dd.appsec.json
	maxRules    = 8 << 20  // bytes of a file of rules
	userKeep    = 2        // priority of a trace that a rule wants kept
)

// firewall is the compiled rules and the invocations that they look at.
type firewall struct {
	handle *libddwaf.Handle
	budget time.Duration
	rules  string // version
	open   []*invocation
}

// invocation is what the rules know of one invocation.
type invocation struct {
	id       uint64
	context  *libddwaf.Context
	tags     answer
	onEvent  map[string]string // tags that only a detection makes worth having
	triggers []json.RawMessage
	size     int // of triggers
	timeouts int
	spent    time.Duration
}

// newFirewall compiles the rules of a file, or the bundled ones.
func newFirewall(file string, budget time.Duration) (*firewall, error) {
	builder, err := libddwaf.NewBuilder(secretKeys, secretValues)
	if err != nil {
		return nil, fmt.Errorf("loading the library: %w", err)
	}
	defer builder.Close()
	var found libddwaf.Diagnostics
	if file == "" {
		found, err = builder.AddDefaultRecommendedRuleset()
	} else {
		var rules any
		if rules, err = readRules(file); err == nil {
			found, err = builder.AddOrUpdateConfig("rules", rules)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	handle := builder.Build()
	if handle == nil {
		return nil, errors.New("rules: none of them can be used")
	}
	return &firewall{handle: handle, budget: budget, rules: found.Version}, nil
}

func readRules(file string) (rules any, err error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxRules {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", file, info.Size(), maxRules)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &rules); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return rules, nil
}

func (f *firewall) close() {
	for _, i := range f.open {
		i.context.Close()
	}
	f.handle.Close()
}

// event begins an invocation. An event that is no HTTP request gets no tags.
func (f *firewall) event(id uint64, event []byte) answer {
	r := parseRequest(event)
	if r == nil {
		return answer{}
	}
	context, err := f.handle.NewContext(timer.WithBudget(f.budget))
	if err != nil {
		return answer{Error: err.Error()}
	}
	i := &invocation{id: id, context: context, onEvent: r.tagsOnEvent()}
	i.tags.Meta = r.tags()
	i.tags.Metrics = map[string]float64{"_dd.appsec.enabled": 1}
	i.tags.Meta["_dd.appsec.waf.version"] = libddwaf.Version()
	if f.rules != "" {
		i.tags.Meta["_dd.appsec.event_rules.version"] = f.rules
	}
	if len(f.open) == maxOpen { // its answer never came
		f.open[0].context.Close()
		f.open = f.open[1:]
	}
	f.open = append(f.open, i)
	i.run(r.addresses())
	return i.tags
}

// answer ends an invocation with what the function answered; empty where the
// function failed.
func (f *firewall) answer(id uint64, body []byte) answer {
	for n, i := range f.open {
		if i.id != id {
			continue
		}
		f.open = append(f.open[:n:n], f.open[n+1:]...)
		defer i.context.Close()
		if r := parseResponse(body); r != nil {
			i.tags.Meta["http.status_code"] = r.status
			i.run(r.addresses())
		}
		return i.tags
	}
	return answer{}
}

// run looks at addresses and adds what was found to the tags.
func (i *invocation) run(addresses map[string]any) {
	begin := time.Now()
	result, err := i.context.Run(libddwaf.RunAddressData{Persistent: addresses})
	i.spent += time.Since(begin)
	i.tags.Error = ""
	if errors.Is(err, waferrors.ErrTimeout) { // there may be events all the same
		i.timeouts++
		i.tags.Error = "the rules were stopped by their time limit (DD_APPSEC_WAF_TIMEOUT): detections may be incomplete"
	} else if err != nil {
		i.tags.Error = err.Error()
	}
	i.tags.Metrics["_dd.appsec.waf.duration"] = float64(i.spent.Microseconds())
	i.tags.Metrics["_dd.appsec.waf.timeouts"] = float64(i.timeouts)
	for name, value := range result.Derivatives {
		if text, ok := value.(string); ok {
			i.tags.Meta[name] = text
		} else if text, err := json.Marshal(value); err == nil {
			i.tags.Meta[name] = string(text)
		}
	}
	if result.Keep {
		i.tags.Metrics["_sampling_priority_v1"] = userKeep
	}
	if len(result.Events) == 0 {
		return
	}
	for _, e := range result.Events {
		trigger, err := json.Marshal(e)
		if err != nil || i.size+len(trigger) > maxTriggers {
			continue
		}
		i.size += len(trigger)
		i.triggers = append(i.triggers, trigger)
	}
	var all strings.Builder
	all.WriteString(`{"triggers":[`)
	for n, t := range i.triggers {
		if n > 0 {
			all.WriteByte(',')
		}
		all.Write(t)
	}
	all.WriteString("]}")
	i.tags.Meta["_dd.appsec.json"] = all.String()
	i.tags.Meta["appsec.event"] = "true"
	for name, value := range i.onEvent {
		i.tags.Meta[name] = value
	}
}
