// A checkout, driven by k6 against a running node: customers win a coupon and pay with it.
//
// For a while, 50 customers at a time each win an issuance of one coupon of unlimited quantity, which takes
// 15 %, at most 5,000, off orders from 1,000. Then each does one of these: reserves and redeems; redeems at once;
// reserves and leaves; lets a second order try while the first one holds it; is refunded, and pays another order.
// One step in ten is sent a second time.
//
// HOST (http://127.0.0.1:8080) is the node. ADMIN_TOKEN is its admin token. SCALE (1) multiplies customers and
// times, for a shorter run.
//
// Every answer is compared with what the contract says, the discount to the last unit, and some histories with
// what was answered. When the load is over, the coupon and its issuances are read back: the coupon must count
// what its issuances are, and no order may have two of them. Any difference fails the run, and so do requests
// without an answer or with another status, and steps that take too long.

import http from 'k6/http';
import exec from 'k6/execution';
import { check, sleep } from 'k6';
import { Counter, Rate, Trend } from 'k6/metrics';

const host = __ENV.HOST || 'http://127.0.0.1:8080';
const scale = Number(__ENV.SCALE || 1);
const offer = { discount: { kind: 'rate', value: 15 }, max_discount: 5000, min_order_amount: 1000 };
const run = `${Date.now()}`;

const failed = new Rate('failed');
const wrong = new Rate('wrong_in_store');
const outcomes = new Counter('outcomes');
const took = new Trend('step_ms', true);

export const options = {
  scenarios: {
    shop: {
      executor: 'constant-vus',
      vus: Math.max(2, Math.round(50 * scale)),
      duration: `${Math.max(2, Math.round(30 * scale))}s`,
      // Customers who have begun go on to the end, so that the counts can be compared.
      gracefulStop: '30s',
    },
  },
  thresholds: {
    failed: ['rate==0'],
    wrong_in_store: ['rate==0'],
    checks: ['rate==1'],
    step_ms: ['p(99)<2000'],
    // The codes are listed so that the summary shows each of them.
    'outcomes{step:reserve,code:OK}': ['count>0'],
    'outcomes{step:redeem,code:OK}': ['count>0'],
    'outcomes{step:release,code:OK}': ['count>0'],
    'outcomes{step:refund,code:OK}': ['count>0'],
    'outcomes{step:redeem,code:RESERVED}': ['count>0'],
    'outcomes{step:reserve,code:BELOW_MINIMUM}': ['count>=0'],
  },
  summaryTrendStats: ['med', 'p(95)', 'p(99)', 'max'],
};

const admin = () => ({ headers: { 'Authorization': `Bearer ${__ENV.ADMIN_TOKEN}`, 'Content-Type': 'application/json' } });

export function setup() {
  const body = JSON.stringify({ title: 'k6 checkout', total_quantity: null, ...offer });
  const made = http.post(`${host}/v1/coupons`, body, admin());
  if (made.status !== 201) throw new Error(`no coupon was made: ${made.status} ${made.body}`);
  return { id: made.json('id') };
}

function discountOf(amount) {
  return Math.min(Math.floor((amount * offer.discount.value) / 100), offer.max_discount);
}

// Takes a step and returns the answer.
function step(issuance, name, body) {
  const answer = http.post(`${host}/v1/issuances/${issuance}/${name}`, JSON.stringify(body), {
    ...admin(),
    tags: { name },
    responseCallback: http.expectedStatuses(200, 409),
  });
  took.add(answer.timings.duration);
  failed.add(answer.status !== 200 && answer.status !== 409);
  outcomes.add(1, { step: name, code: answer.status === 200 ? 'OK' : codeOf(answer) });
  return answer;
}

function codeOf(answer) {
  return (answer.body && answer.json('code')) || `HTTP_${answer.status}`;
}

// Takes a step that must succeed, and one time in ten once more, which must be told again and change nothing.
function must(issuance, name, body, amount) {
  const answer = step(issuance, name, body);
  const done = check(answer, {
    'a step is answered with its use': (it) => it.status === 200
      && it.json('use.order_id') === body.order_id && it.json('use.order_amount') === amount,
    'the discount is the defined one': (it) => it.status === 200 && it.json('use.discount') === discountOf(amount),
  });
  if (done && Math.random() < 0.1) {
    check(step(issuance, name, body), {
      'a repeat is told again': (it) => it.status === 200 && it.headers['Idempotent-Replayed'] === 'true'
        && it.json('use.at') === answer.json('use.at'),
    });
  }
  return done;
}

function mustNot(issuance, name, body, code) {
  check(step(issuance, name, body), { 'a refusal has its code': (it) => it.status === 409 && codeOf(it) === code });
}

export default function customer({ id }) {
  const name = `${exec.vu.idInTest}-${exec.vu.iterationInScenario}.${run}`;
  const issued = http.post(`${host}/v1/coupons/${id}/issuances`, null, {
    headers: { 'X-User-Id': `k6-${name}` },
    tags: { name: 'issue' },
  });
  failed.add(issued.status !== 201);
  if (issued.status !== 201) return;
  const issuance = issued.json('id');
  const amount = 1000 + Math.floor(Math.random() * 60000);
  const order = { order_id: `a-${name}` };
  const priced = { ...order, order_amount: amount };
  const other = { order_id: `b-${name}`, order_amount: amount };
  const quote = http.get(`${host}/v1/issuances/${issuance}/quote?order_amount=${amount}`, { ...admin(), tags: { name: 'quote' } });
  check(quote, { 'a quote is what is fixed then': (it) => it.json('discount') === discountOf(amount) && it.json('usable') === true });
  mustNot(issuance, 'reserve', { ...order, order_amount: 999 }, 'BELOW_MINIMUM');
  switch (exec.vu.iterationInScenario % 5) {
    case 0:
      must(issuance, 'reserve', priced, amount);
      must(issuance, 'redeem', order, amount);
      break;
    case 1:
      must(issuance, 'redeem', priced, amount);
      mustNot(issuance, 'redeem', other, 'REDEEMED');
      break;
    case 2:
      must(issuance, 'reserve', priced, amount);
      must(issuance, 'release', order, amount);
      mustNot(issuance, 'redeem', order, 'NOT_RESERVED');
      break;
    case 3:
      must(issuance, 'reserve', priced, amount);
      mustNot(issuance, 'redeem', other, 'RESERVED');
      break;
    default:
      must(issuance, 'redeem', priced, amount);
      must(issuance, 'refund', order, amount);
      must(issuance, 'redeem', other, amount);
      check(http.get(`${host}/v1/issuances/${issuance}/uses`, { ...admin(), tags: { name: 'uses' } }), {
        'the history is what was answered': (it) => it.json('items').map((use) => use.kind).join(' ') === 'redeemed refunded redeemed',
      });
  }
}

// Compares the coupon with what is stored of each issuance.
export function teardown({ id }) {
  const stored = issuancesOf(id);
  const count = (status) => stored.filter((issuance) => issuance.status === status).length;
  // Lists and coupons may be up to a second old.
  let coupon = {};
  for (let attempt = 0; attempt < 20; attempt += 1) {
    coupon = http.get(`${host}/v1/coupons/${id}`).json();
    if (coupon.redeemed === count('redeemed') && coupon.reserved === count('reserved')) break;
    sleep(0.1);
  }
  const orders = new Set(stored.filter((one) => one.status === 'redeemed').map((one) => one.use.order_id));
  const exact = check(stored, {
    'the coupon counts what is redeemed': () => coupon.redeemed === count('redeemed') && coupon.redeemed > 0,
    'the coupon counts what is reserved': () => coupon.reserved === count('reserved'),
    'issued is the number of stored issuances': () => coupon.issued === stored.length,
    'no order has two issuances': () => orders.size === count('redeemed'),
    'discounts are the defined ones': () => stored.every((one) => !one.use || one.use.discount === discountOf(one.use.order_amount)),
  });
  wrong.add(!exact);
  console.log(`coupon ${id}: ${stored.length} issued, ${coupon.reserved} reserved, ${coupon.redeemed} redeemed`);
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
