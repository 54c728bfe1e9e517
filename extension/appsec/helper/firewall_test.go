package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The tests run the real library with its bundled rules. Their budget leaves no
// room for chance: the default's 5 ms are for production.
const testBudget = 10 * time.Second

func compile(t *testing.T) *firewall {
	t.Helper()
	f, err := newFirewall("", testBudget)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	return f
}

func httpEvent(t *testing.T, userAgent, query, contentType, body string) []byte {
	t.Helper()
	event, err := json.Marshal(map[string]any{
		"version": "2.0", "rawPath": "/search", "rawQueryString": query, "routeKey": "GET /search", "body": body,
		"headers":        map[string]string{"user-agent": userAgent, "content-type": contentType, "authorization": "Bearer of-secrets", "host": "h"},
		"requestContext": map[string]any{"domainName": "api.example", "http": map[string]string{"method": "GET", "sourceIp": "192.0.2.1"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return event
}

func TestAttacks(t *testing.T) {
	f := compile(t)
	for name, c := range map[string]struct {
		event []byte
		kind  string // of attack, as the rule that must match says
	}{
		"scanner":               {httpEvent(t, "Arachni/v1.5", "", "", ""), "attack_tool"},
		"SQL injection, query":  {httpEvent(t, "Mozilla/5.0", "id=1%27%20OR%201%3D1%20--", "", ""), "sql_injection"},
		"script, JSON body":     {httpEvent(t, "Mozilla/5.0", "", "application/json", `{"a":["<script>alert(1)</script>"]}`), "xss"},
		"traversal, form":       {httpEvent(t, "Mozilla/5.0", "", "application/x-www-form-urlencoded", "file=../../../../etc/passwd"), "lfi"},
		"Log4Shell in a header": {httpEvent(t, "${jndi:ldap://x.example/a}", "", "", ""), "exploit_detection"},
	} {
		t.Run(name, func(t *testing.T) {
			a := f.event(1, c.event)
			if a.Error != "" || a.Meta["appsec.event"] != "true" || a.Metrics["_sampling_priority_v1"] != 2 {
				t.Fatalf("%+v", a)
			}
			var found struct {
				Triggers []struct {
					Rule struct{ Tags struct{ Type string } }
				}
			}
			if err := json.Unmarshal([]byte(a.Meta["_dd.appsec.json"]), &found); err != nil {
				t.Fatal(err)
			}
			var kinds []string
			for _, trigger := range found.Triggers {
				kinds = append(kinds, trigger.Rule.Tags.Type)
			}
			if !slices.Contains(kinds, c.kind) {
				t.Errorf("rules against %q matched, not %s", kinds, c.kind)
			}
			if a.Meta["http.route"] != "GET /search" || a.Meta["network.client.ip"] != "192.0.2.1" || a.Meta["http.url"] != "api.example/search" {
				t.Errorf("%q", a.Meta)
			}
			if text := fmt.Sprint(a); strings.Contains(text, "of-secrets") {
				t.Error("credentials are among the tags:", text)
			}
			f.answer(1, nil)
		})
	}
}

func TestHarmlessRequest(t *testing.T) {
	f := compile(t)
	a := f.event(1, httpEvent(t, "Mozilla/5.0", "q=shoes", "", ""))
	if a.Meta["appsec.event"] != "" || a.Meta["_dd.appsec.json"] != "" || a.Meta["network.client.ip"] != "" {
		t.Errorf("%q", a.Meta)
	}
	if a.Metrics["_dd.appsec.enabled"] != 1 || a.Meta["_dd.appsec.waf.version"] == "" || a.Meta["_dd.appsec.event_rules.version"] == "" {
		t.Errorf("%+v", a)
	}
	if a := f.event(2, []byte(`{"Records":[]}`)); a.Meta != nil {
		t.Errorf("no HTTP request, yet %+v", a)
	}
}

// A rule may look at the request and the answer together: a scanner's 404.
func TestAnswerIsLookedAt(t *testing.T) {
	f := compile(t)
	event := []byte(strings.Replace(string(httpEvent(t, "Mozilla/5.0", "", "", "")), "/search", "/phpmyadmin/index.php", 1))
	if a := f.event(1, event); a.Meta["appsec.event"] != "" {
		t.Fatalf("before the answer: %+v", a)
	}
	a := f.answer(1, []byte(`{"statusCode":404}`))
	if a.Meta["appsec.event"] != "true" || a.Meta["http.status_code"] != "404" {
		t.Errorf("%+v", a)
	}
	if again := f.answer(1, []byte(`{}`)); again.Meta != nil || len(f.open) != 0 {
		t.Errorf("the invocation had ended: %+v", again)
	}
}

func TestAnswersThatNeverCome(t *testing.T) {
	f := compile(t)
	for id := range uint64(3 * maxOpen) {
		f.event(id, httpEvent(t, "x", "", "", ""))
	}
	if len(f.open) != maxOpen {
		t.Errorf("%d invocations are kept open", len(f.open))
	}
}

func TestTimeLimit(t *testing.T) {
	f, err := newFirewall("", time.Microsecond)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	a := f.event(1, httpEvent(t, "Arachni/v1", "", "", ""))
	if !strings.Contains(a.Error, "DD_APPSEC_WAF_TIMEOUT") || a.Metrics["_dd.appsec.waf.timeouts"] != 1 {
		t.Errorf("%+v", a)
	}
}

// Many matches must not become a tag that the intake refuses.
func TestManyTriggers(t *testing.T) {
	f := compile(t)
	attack := `{"a":[` + strings.Repeat(`"<script>alert(1)</script> ../../etc/passwd ' OR 1=1 -- ;cat /etc/passwd",`, 200) + `0]}`
	a := f.event(1, httpEvent(t, "Arachni/v1", "", "application/json", attack))
	if text := a.Meta["_dd.appsec.json"]; len(text) > maxTriggers+1024 || !json.Valid([]byte(text)) || !strings.Contains(text, "rule") {
		t.Errorf("%d bytes: %.200s", len(text), text)
	}
}

func TestRulesFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "rules.json")
	rules := `{"version":"2.2","metadata":{"rules_version":"9.9.9"},"rules":[{"id":"own","name":"own","tags":{"type":"t","category":"c"},
		"conditions":[{"operator":"match_regex","parameters":{"inputs":[{"address":"server.request.query"}],"regex":"shibboleth"}}]}]}`
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := newFirewall(file, testBudget)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	a := f.event(1, httpEvent(t, "Arachni/v1", "q=shibboleth", "", ""))
	if !strings.Contains(a.Meta["_dd.appsec.json"], `"own"`) || strings.Contains(a.Meta["_dd.appsec.json"], "Arachni/v") ||
		a.Meta["_dd.appsec.event_rules.version"] != "9.9.9" {
		t.Errorf("%+v", a)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{file, filepath.Join(dir, "nowhere")} {
		if _, err := newFirewall(bad, testBudget); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

// ask runs the helper on a stream of requests.
func ask(stream string) ([]answer, error) {
	var out bytes.Buffer
	err := run(strings.NewReader(stream), &out, "", testBudget)
	var answers []answer
	for d := json.NewDecoder(&out); ; {
		var a answer
		if d.Decode(&a) == io.EOF {
			return answers, err
		}
		answers = append(answers, a)
	}
}

func TestProtocol(t *testing.T) {
	event := string(httpEvent(t, "Arachni/v1", "", "", ""))
	frame := func(kind, payload string) string {
		return fmt.Sprintf("{\"invocation\":7,\"kind\":%q,\"size\":%d}\n%s", kind, len(payload), payload)
	}
	answers, err := ask(frame("event", event) + frame("answer", `{"statusCode":200}`))
	if err != nil || len(answers) != 3 || !answers[0].Ready || answers[1].Meta["appsec.event"] != "true" || answers[2].Meta["http.status_code"] != "200" {
		t.Errorf("%v %+v", err, answers)
	}
	for name, stream := range map[string]string{
		"no JSON": "x\n", "no line": strings.Repeat("x", 1<<20), "too large": `{"kind":"event","size":99999999}` + "\n",
		"negative": `{"kind":"event","size":-1}` + "\n", "unknown": frame("x", ""), "cut off": `{"kind":"event","size":10}` + "\nx",
	} {
		if _, err := ask(stream); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
