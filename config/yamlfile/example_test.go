package yamlfile_test

import (
	"fmt"
	"os"
	"time"

	"github.com/discharger/discharger/config/yamlfile"
)

func Example() {
	text := "polcies: []\nwait: 5\n"
	doc := yamlfile.Read("rules.yaml", []byte(text), yamlfile.Options{})
	if doc.Root != nil {
		fields := doc.Fields(doc.Root, "", "policies", "wait")
		fields.Require("policies", "")
		doc.Duration(fields.Get("wait"), "wait", time.Second, time.Hour)
	}
	problems := doc.Problems()
	if _, err := problems.WriteTo(os.Stdout); err != nil {
		fmt.Println(err)
	}
	fmt.Println("usable:", problems.Err() == nil)
	// Output:
	// rules.yaml:1:1: key "polcies" is unknown (did you mean policies?)
	//     1 | polcies: []
	//       | ^^^^^^^
	// rules.yaml:2:7: wait: want a duration such as 90s, 5m, 12h or 30d, got 5; write 5s for seconds
	//     2 | wait: 5
	//       |       ^
	// usable: false
}
