package cel

import (
	"strings"

	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/discharger/discharger/policy"
)

// costs holds the sizes of the input and the costs of this package's
// functions, for the worst case of an expression before it runs.
// A unit is about the time of comparing two numbers; ten thousand take about a
// millisecond.
type costs struct {
	sizes map[string]cost.SizeEstimate // by path, joined by dots
}

func newCosts(table []Field, lists map[string]*stringList) *costs {
	c := &costs{sizes: map[string]cost.SizeEstimate{}}
	for _, f := range table {
		if f.Size == 0 {
			continue
		}
		c.sizes[f.Path()] = cost.RangedSizeEstimate(0, f.Size)
		if f.Type.Kind() == types.MapKind {
			c.sizes[f.Path()+".@keys"] = cost.RangedSizeEstimate(0, policy.MaxLabelKey)
			c.sizes[f.Path()+".@values"] = cost.RangedSizeEstimate(0, policy.MaxLabelValue)
		}
	}
	for name, list := range lists {
		c.sizes[listVariable(name)] = cost.FixedSizeEstimate(uint64(len(list.values)))
		c.sizes[listVariable(name)+".@items"] = cost.RangedSizeEstimate(0, uint64(list.longest))
	}
	return c
}

// EstimateSize implements cost.Estimator.
func (c *costs) EstimateSize(node cost.AstNode) *cost.SizeEstimate {
	if path := node.Path(); len(path) > 0 {
		if size, ok := c.sizes[strings.Join(path, ".")]; ok {
			return &size
		}
		// The value of a label.
		if len(path) == 3 && path[0] == "session" && path[1] == "labels" && node.Type().Kind() == types.StringKind {
			size := cost.RangedSizeEstimate(0, policy.MaxLabelValue)
			return &size
		}
	}
	return nil
}

// The costs of this package's functions. A lookup of an address parses at
// most 45 characters and does a binary search.
const (
	lookupCost   = 3
	calendarCost = 4
)

// EstimateCallCost implements cost.Estimator.
func (c *costs) EstimateCallCost(_, overload string, _ *cost.AstNode, args []cost.AstNode) *cost.CallEstimate {
	switch overload {
	case "in_list":
		if len(args) == 2 && isListPath(args[1].Path()) {
			return cost.NewCallEstimate(cost.FixedCostEstimate(lookupCost), nil)
		}
	case "string_to_networks":
		if len(args) == 1 {
			one := cost.FixedSizeEstimate(1)
			return cost.NewCallEstimate(cost.EstimateSize(c, args[0]).Add(one).MultiplyByCostFactor(1), nil)
		}
	default:
		if price, ok := fixedPrice(overload); ok {
			return cost.NewCallEstimate(cost.FixedCostEstimate(price), nil)
		}
	}
	return nil
}

// CallCost implements cost.ActualCostEstimator.
func (c *costs) CallCost(_, overload string, args []ref.Val, _ ref.Val) *uint64 {
	price, known := fixedPrice(overload)
	switch overload {
	case "in_list":
		if len(args) == 2 {
			_, known = args[1].(*stringList)
			price = lookupCost
		}
	case "string_to_networks":
		if s, ok := args[0].(types.String); ok {
			price, known = uint64(len(s))+1, true
		}
	}
	if !known {
		return nil
	}
	return &price
}

func fixedPrice(overload string) (uint64, bool) {
	switch overload {
	case "string_in_networks", "ip_in_networks", "string_in_cidr", "ip_in_cidr",
		"networks_contains_ip_string", "networks_contains_ip_ip", "same_network":
		return lookupCost, true
	case "timestamp_during":
		return calendarCost, true
	}
	return 0, false
}

func isListPath(path []string) bool {
	return len(path) > 0 && strings.HasPrefix(path[0], listPrefix)
}

// The prefixes of the variables of a file's lists.
const (
	listPrefix    = "lists."
	networkPrefix = "networks."
)

func listVariable(name string) string { return listPrefix + name }

func networkVariable(name string) string { return networkPrefix + name }

// A stringList is a list of strings from a file: a CEL list with a map for lookups.
type stringList struct {
	traits.Lister
	values  []string
	members map[string]struct{}
	longest int
}

func newStringList(values []string) *stringList {
	l := &stringList{
		Lister:  types.NewStringList(types.DefaultTypeAdapter, values),
		values:  values,
		members: make(map[string]struct{}, len(values)),
	}
	for _, v := range values {
		l.members[v] = struct{}{}
		l.longest = max(l.longest, len(v))
	}
	return l
}

// Contains implements the operator "in" with the map.
func (l *stringList) Contains(v ref.Val) ref.Val {
	s, ok := v.(types.String)
	if !ok {
		return types.False
	}
	_, found := l.members[string(s)]
	return types.Bool(found)
}
