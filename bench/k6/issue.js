// Load shapes of coupon events, driven by k6 against a running node.
//
//   SHAPE=ramp   2,000 users within 10 s, held for 80 s, with a pause of 1 s between requests; 50,000
//                coupons; user ids drawn from 1 to 10,000,000.
//   SHAPE=sale   100, then 300, then 500 users, with pauses of 0.5 to 1.5 s; five coupons of 30; user ids
//                drawn from 1 to 500.
//
// HOST (http://127.0.0.1:8080) is the node. ADMIN_TOKEN is its admin token, to make coupons and to read
// issuances. SCALE (1) multiplies users, times and, in the ramp, coupons, for a shorter run.
//
// Refusals (409) are outcomes, counted by their code. Requests without an answer or with any other status are
// failures. When the load is over, the coupons are read back. Both shapes send more requests than there
// are coupons. So exactly the quantity must be issued, with sequences without a gap and at most one issuance
// for each user. Any difference fails the run.

import http from 'k6/http';
import { check, sleep } from 'k6';
import { Counter, Rate } from 'k6/metrics';

const host = __ENV.HOST || 'http://127.0.0.1:8080';
const scale = Number(__ENV.SCALE || 1);
const shape = __ENV.SHAPE || 'ramp';

const shapes = {
  ramp: {
    coupons: 1,
    total: Math.max(1, Math.round(50000 * scale * scale)),
    users: 10000000,
    stages: [[10, 2000], [80, 2000]],
    think: () => 1,
  },
  sale: {
    coupons: 5,
    total: 30,
    users: 500,
    stages: [[10, 100], [20, 300], [20, 500]],
    think: () => 0.5 + Math.random(),
  },
};
if (!(shape in shapes)) throw new Error(`SHAPE is one of ${Object.keys(shapes).join(', ')}`);
const { coupons, total, users, stages, think } = shapes[shape];

const outcomes = new Counter('outcomes');
const failed = new Rate('failed');
const wrong = new Rate('wrong_in_store');

export const options = {
  scenarios: {
    crowd: {
      executor: 'ramping-vus',
      startVUs: 0,
      stages: stages.map(([seconds, target]) => ({
        duration: `${Math.max(1, Math.round(seconds * scale))}s`,
        target: Math.max(1, Math.round(target * scale)),
      })),
      gracefulRampDown: '10s',
    },
  },
  thresholds: {
    failed: ['rate==0'],
    wrong_in_store: ['rate==0'],
    checks: ['rate==1'],
    // The codes are listed so that the summary shows each of them.
    'outcomes{code:ISSUED}': ['count>0'],
    'outcomes{code:SOLD_OUT}': ['count>=0'],
    'outcomes{code:ALREADY_ISSUED}': ['count>=0'],
    'outcomes{code:OVERLOADED}': ['count==0'],
    'outcomes{code:OUTCOME_UNKNOWN}': ['count==0'],
  },
  summaryTrendStats: ['med', 'p(95)', 'p(99)', 'max'],
};

const admin = () => ({ headers: { 'Authorization': `Bearer ${__ENV.ADMIN_TOKEN}`, 'Content-Type': 'application/json' } });

export function setup() {
  const ids = [];
  for (let number = 0; number < coupons; number += 1) {
    const body = JSON.stringify({ title: `k6 ${shape} ${number + 1}`, total_quantity: total });
    const made = http.post(`${host}/v1/coupons`, body, admin());
    if (made.status !== 201) throw new Error(`no coupon was made: ${made.status} ${made.body}`);
    ids.push(made.json('id'));
  }
  return { ids };
}

export default function crowd({ ids }) {
  const id = ids[Math.floor(Math.random() * ids.length)];
  const user = `user-${1 + Math.floor(Math.random() * users)}`;
  const answer = http.post(`${host}/v1/coupons/${id}/issuances`, null, {
    headers: { 'X-User-Id': user },
    tags: { name: 'issue' },
    responseCallback: http.expectedStatuses(201, 409),
  });
  failed.add(answer.status !== 201 && answer.status !== 409);
  outcomes.add(1, { code: answer.status === 201 ? 'ISSUED' : codeOf(answer) });
  sleep(think());
}

function codeOf(answer) {
  return (answer.body && answer.json('code')) || `HTTP_${answer.status}`;
}

export function teardown({ ids }) {
  for (const id of ids) {
    const coupon = http.get(`${host}/v1/coupons/${id}`).json();
    const stored = issuancesOf(id);
    const holders = new Set(stored.map((issuance) => issuance.user_id));
    const dense = stored.every((issuance, place) => issuance.sequence === place + 1);
    const exact = check(stored, {
      'exactly the quantity is issued': () => stored.length === total && coupon.phase === 'sold_out',
      'issued is the number of stored issuances': () => coupon.issued === stored.length,
      'sequences without a gap': () => dense,
      'no user twice': () => holders.size === stored.length,
    });
    wrong.add(!exact);
    console.log(`coupon ${id}: ${stored.length} of ${total} issued, phase ${coupon.phase}`);
  }
}

function issuancesOf(id) {
  const stored = [];
  let after = 0;
  for (;;) {
    const page = http.get(`${host}/v1/coupons/${id}/issuances?limit=200&after_sequence=${after}`, admin()).json('items');
    stored.push(...page);
    if (page.length < 200) return stored;
    after = page[page.length - 1].sequence;
  }
}
