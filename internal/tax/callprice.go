package tax

import (
	"context"
	"time"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/rounds"
	"github.com/unthunk/unthunk/internal/stat"
)

// callRounds is how many rounds price one call: enough for an interval at 95 %, which
// takes six.
const callRounds = 7

// CallPrice prices one indirect call of the kernel in ns, that of the pair [Thunk], on a
// CPU, for about d. Where there is no price it is nil, and why is the
// reason. The errors are those of [Run].
func CallPrice(ctx context.Context, cpu rounds.CPU, d time.Duration, show func(rounds.Progress)) (
	price *stat.Quantity, why string, err error,
) {
	raw, err := Run(ctx, Plan{
		Pairs: []string{Thunk}, CPU: cpu, Schedule: rounds.Schedule{Rounds: callRounds, Duration: d},
	}, show)
	if err != nil {
		return nil, "", err
	}
	if raw.Incomplete {
		return nil, stoppedRun, nil
	}
	rows, _ := raw.Record()
	price, why = CallPriceOf(rows)
	return price, why, nil
}

const stoppedRun = "the run was stopped"

// CallPriceOf is the price of one indirect call in ns among rows; nil when there is
// none, for the reason that why says.
func CallPriceOf(rows []record.TaxRow) (price *stat.Quantity, why string) {
	for _, row := range rows {
		if row.Name == Thunk && (row.Price != nil || row.Refused != "") {
			return row.Price, row.Refused
		}
	}
	return nil, stoppedRun
}
