package check_test

import (
	"fmt"
	"os"
	"testing/fstest"

	"github.com/discharger/discharger/policy/check"
	"github.com/discharger/discharger/policy/rules"
)

func ExampleFiles() {
	files := fstest.MapFS{"policy.yaml": {Data: []byte(`version: 1
policies:
  default:
    rules:
      - name: too-old
        when: now - session.creatd > days(90)
        then: reauth
    otherwise: allow
`)}}
	report, err := check.Files(rules.Config{FS: files, Files: []string{"policy.yaml"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := report.Problems.WriteTo(os.Stdout); err != nil {
		fmt.Println(err)
	}
	// Output:
	// policy.yaml:6:29: session has no field creatd (did you mean created?)
	//     6 |         when: now - session.creatd > days(90)
	//       |                             ^^^^^^
}
