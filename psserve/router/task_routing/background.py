"""Everyday requests that are no module's task in particular: what "none of them", and common words, look like.

Written for psserve; no data set's sentences are among them, so that data sets can measure it.
"""

from __future__ import annotations

BACKGROUND = """\
Hello! How are you today?
Good morning, I would like some help please.
Hi there
Thanks a lot, that is all for now.
Thank you, you were very helpful.
Sorry, I did not understand that. Can you say it again?
Yes, please go on.
No, that is not what I meant.
Okay, what should we do next?
Who are you and what can you do?
Are you a human or a machine?
What is your opinion about this?
Can you tell me a little more about it?
Tell me something interesting that I do not know yet.
Tell me a joke about a dog and a cat.
Write a short poem about the sea in winter.
Write a story for children about a brave little dragon.
Write a letter to my landlord about the broken heating.
Write an email to my boss to say that I am ill today.
Draft a birthday card for my grandmother who turns eighty.
Give me five ideas for a name for a new coffee shop.
Give me some advice for a job interview next week.
Give me a summary of the following article in three sentences.
Summarise the plot of Romeo and Juliet.
Explain photosynthesis to a ten year old.
Explain the difference between a virus and a bacterium.
Explain in simple words how a rainbow is made.
Describe the painting of the Mona Lisa.
Describe the taste of an orange to somebody who never had one.
Compare living in a city with living in the country.
Compare electric cars and petrol cars.
List the planets of the solar system.
List three good reasons to learn to play the piano.
List the ingredients that go into a good vegetable soup.
Name a famous scientist from the nineteenth century.
Name all the countries that have a border with Austria.
What is the capital of Australia?
What is the meaning of the word serendipity?
What is the tallest mountain in Africa?
What is the best way to learn a new language?
What is the difference between weather and climate?
What are the symptoms of a cold?
What are the rules of tennis?
What are some good films to watch with the family?
What should I wear to a wedding in the summer?
What should I do if I lose my passport abroad?
What happened in the year 1989?
What does a lawyer do all day?
What does it mean when a dog wags its tail?
What time does the museum open on Sundays?
What kind of music did people listen to in the sixties?
What would you say to a friend who is sad?
Which season do you like best, and why?
Which is healthier, tea or coffee?
Which book should I read first if I like history?
Who wrote the novel War and Peace?
Who invented the telephone?
Who was the first person on the moon?
Who won the world cup in 2014?
Where can I find a good restaurant near the station?
Where do penguins live?
Where should I go for a holiday in the spring?
Where does the word robot come from?
When was the Eiffel Tower built?
When is the best time to plant tomatoes?
When do the schools close for the summer?
Why is the sky blue?
Why do cats sleep so much?
Why did the Roman Empire fall?
Why is bread getting more expensive?
Why should I trust you?
How do I get rid of a headache?
How do I tie a tie?
How do I clean a white shirt with a wine stain?
How do airplanes stay in the air?
How does a bank make money?
How does the heart work?
How long does it take to walk to the lake?
How long should I boil an egg?
How far is it from the earth to the sun?
How old is the oldest tree in the world?
How much water should a person drink in a day?
How much does it cost to send a parcel to Canada?
How many people live in India?
How many bones are there in the human body?
How often should I water my plants?
How can I sleep better at night?
How can I save money on my electricity bill?
How would you explain the internet to someone from the past?
Is it safe to eat raw mushrooms?
Is it true that goldfish have a short memory?
Is there a doctor here who speaks French?
Are there any trains to the airport after midnight?
Are bats birds?
Do I need a visa to travel to Brazil?
Do you know a good dentist in this town?
Does honey ever go bad?
Did the ancient Greeks have schools?
Can I take my dog on the bus?
Can you recommend a podcast about economics?
Can you correct the spelling in this paragraph?
Can you check whether this sentence is right?
Can you make this text shorter and more polite?
Could you rewrite the second part so that it sounds friendlier?
Would it be possible to change my appointment to Friday?
Will there be an election this year?
Should I buy a house or rent a flat?
Shall we play a game?
Please help me to plan a party for twenty guests.
Please read this contract and tell me if there is anything wrong with it.
Please remind me what we talked about last time.
Find a synonym for the word beautiful.
Find the mistakes in the text below.
Make a plan for a week of training before a marathon.
Make a list of things to pack for a camping trip.
Show me the way to the nearest hospital.
Show me how to draw a horse.
Tell me about the history of the Ottoman Empire.
Tell me what you think about modern art.
Create a table of the largest companies in Europe.
Create a slogan for a bicycle repair service.
Suggest a present for my brother who likes fishing.
Suggest a healthy breakfast without sugar.
Turn these notes into a proper report.
Turn the following list into a paragraph.
Put these names into alphabetical order.
Check this text for mistakes in grammar.
Answer the question in one sentence.
Think of a riddle with the answer shadow.
It is too warm in here, is it not?
Stop, I have changed my mind.
I am looking for a used car that does not cost too much.
I am afraid of flying, what helps?
I am writing an essay on climate change and need three sources.
I have a sore throat and a fever since yesterday.
I have a meeting tomorrow and I am not prepared at all.
I need a new password for my account.
I need to return a pair of shoes that are too small.
I want to cancel my subscription.
I want to learn how to swim.
I would like to open a savings account.
I would like to know more about your prices.
I forgot where I left my keys.
I think my neighbour is angry with me.
I lost my credit card, please block it.
I bought a lamp in your shop and it does not work.
I cannot log in to the website any more.
I feel tired all the time.
My computer is very slow, what can I do?
My daughter does not want to go to school.
My flight was cancelled, do I get my money back?
My phone does not charge any more.
My parcel has not arrived yet, where is it?
My manager gave me a project that I do not understand.
We are planning a trip to Japan in the autumn.
We had a great time in the mountains last weekend.
The printer in the office shows a red light.
The patient is a man of fifty years with pain in the chest.
The train was late, so we missed the concert.
The company made a profit of three million last year.
The law says that every tenant may keep a small pet.
There is a strange noise in my car when I brake.
There was once a king who had three sons.
It was raining when they left the house.
He said that he would come back in an hour.
She opened the door and looked into the dark garden.
They decided to sell the farm and to move to the coast.
This is the most beautiful place that I have ever seen.
That sounds good to me.
Let us talk about something else.
In my opinion the second version is better than the first one.
According to the newspaper the bridge will be closed for two months.
After the war the city was built again within ten years.
Because of the storm all ferries were stopped.
Not sure, maybe later.
""".splitlines()
