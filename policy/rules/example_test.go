package rules_test

import (
	"context"
	"fmt"
	"testing/fstest"

	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/rules"
)

func ExampleLoad() {
	files := fstest.MapFS{"policy.yaml": {Data: []byte(`
version: 1
networks:
  office: [203.0.113.0/24, "2001:db8:7::/48"]
policies:
  default:
    rules:
      - name: admins-at-the-office
        when: >
          session.labels[?"role"].orValue("") == "admin" &&
          !(request.ip in networks.office)
        then: {effect: deny, code: admin_network}
    otherwise: {effect: allow, ttl: 10m}
`)}}
	set, err := rules.Load(rules.Config{FS: files, Files: []string{"policy.yaml"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	in := policy.SampleInput()
	d, err := policy.Ask(context.Background(), set, in)
	fmt.Println(d.Effect, d.TTL, d.Rule, err)
	in.Session.Labels["role"] = "admin"
	d, err = policy.Ask(context.Background(), set, in)
	fmt.Println(d.Effect, d.Code, d.Rule, err)
	// Output:
	// allow 10m0s default/otherwise <nil>
	// deny admin_network default/admins-at-the-office <nil>
}
