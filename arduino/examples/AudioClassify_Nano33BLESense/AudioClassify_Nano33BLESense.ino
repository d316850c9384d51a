// SPDX-License-Identifier: Apache-2.0
//
// Classifies what the microphone of an Arduino Nano 33 BLE Sense hears: the last second, four times a second. The
// library PDM comes with the board's core. The LED is lit while the network is sure.
#include <MCUFormer.h>
#include <MCUFormerSound.h>
#include <PDM.h>

static const int SURE = 600;                            // of 1000
static const int EVERY = MODEL_FRONT_END_RATE / 4;      // samples from one answer to the next
static const int32_t QUEUE = MODEL_FRONT_END_RATE / 2;  // samples that can wait while the network runs

static mcuformer::Sound sound;
static int16_t queue[QUEUE];
static volatile int32_t written = 0, taken = 0;  // samples in all, modulo QUEUE * 2
static volatile bool lost = false;

// Called by the library, in an interrupt, when samples are there.
static void onSamples() {
  static int16_t samples[256];
  const int bytes = PDM.read(samples, sizeof samples);
  for (int i = 0; i < bytes / 2; ++i) {
    if ((written - taken + 2 * QUEUE) % (2 * QUEUE) >= QUEUE) {
      lost = true;
      return;
    }
    queue[written % QUEUE] = samples[i];
    written = (written + 1) % (2 * QUEUE);
  }
}

void setup() {
  Serial.begin(115200);
  pinMode(LED_BUILTIN, OUTPUT);
  PDM.onReceive(onSamples);
  if (!PDM.begin(1, MODEL_FRONT_END_RATE)) {
    Serial.println("error: no microphone found");
    for (;;) delay(1000);
  }
}

void loop() {
  static int32_t since = 0;
  while (taken != written) {
    // A piece up to the queue's end.
    const int32_t from = taken % QUEUE, there = (written - taken + 2 * QUEUE) % (2 * QUEUE);
    const int32_t count = there < QUEUE - from ? there : QUEUE - from;
    sound.Push(queue + from, count);
    taken = (taken + count) % (2 * QUEUE);
    since += count;
  }
  if (lost) {
    lost = false;
    Serial.println("error: samples were lost");
  }
  if (since < EVERY) return;
  since = 0;
  int8_t logits[MODEL_CLASSES];
  const unsigned long start = micros();
  const mcuf_status status = sound.Classify(logits);
  const unsigned long duration = micros() - start;
  if (status != MCUF_OK) {
    Serial.print("error ");
    Serial.println(static_cast<int>(status));
    return;
  }
  const int best = mcuformer::Best(logits), confidence = model_confidence(logits, best);
  digitalWrite(LED_BUILTIN, confidence >= SURE ? HIGH : LOW);
  Serial.print(model_class_names[best]);
  Serial.print(", ");
  Serial.print(confidence / 10);
  Serial.print(" %, ");
  Serial.print(duration);
  Serial.println(" us");
}
